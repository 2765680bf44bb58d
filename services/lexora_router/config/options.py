"""Lays the options of a command over a configuration tree, after the environment: an option wins over everything."""

from collections.abc import Mapping
from typing import Any

from lexora_router.config.env import RIVALS, put
from lexora_router.config.models import Config
from lexora_router.config.positions import Tree
from lexora_router.config.problems import Path, Where

# Key path -> the option that sets it, for messages.
OPTIONS = {
    "server.workers": "--workers",
    "server.host": "--host",
    "server.port": "--port",
    "server.grpc_host": "--host",
    "server.grpc_port": "--grpc-port",
    "server.metrics_port": "--metrics-port",
    "vllm.url": "--url",
    "vllm.urls": "--url",
    "routing.default_model_for_unknown_task": "--model",
}


def apply_options(options: Mapping[str, Any], tree: Tree) -> None:
    """Change `tree` to what the options say: values by key path (`server.port`), None for an option that was not given."""
    for key, value in options.items():
        if value is None:
            continue
        path = _path(key)
        section = tree.data.get(str(path[0]))
        if isinstance(section, dict):
            section.pop(RIVALS.get(str(path[-1]), ""), None)
        put(tree, path, value, Where(OPTIONS[key], variable=True))


def check_command_options(options: Mapping[str, Any], config: Config, tree: Tree) -> None:
    """An address that was asked for and would not be served is a mistake, not a warning."""
    for key, value in options.items():
        if key.startswith("vllm.") and value is not None and not config.single_backend:
            where = tree.where(("routing", "backends"))
            tree.fail(Where(OPTIONS[key], variable=True), f"has no effect: there are routing.backends in {where}", _path(key))


def _path(key: str) -> Path:
    return tuple(key.split("."))
