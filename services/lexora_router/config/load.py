"""Finds the configuration file, lays it and the environment over the defaults, and reports everything that is wrong."""

import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from lexora_router.config.auth import MIN_SALT_SECRET, auth_faults
from lexora_router.config.check import (
    Fault,
    backend_faults,
    classifier_faults,
    config_faults,
    health_faults,
    rate_limit_faults,
    retry_faults,
    routing_faults,
    tenant_faults,
    tls_faults,
)
from lexora_router.config.discover import discover_faults
from lexora_router.config.env import FILE_VARIABLE, apply
from lexora_router.config.explain import explain
from lexora_router.config.models import Config
from lexora_router.config.openings import openings
from lexora_router.config.options import apply_options, check_command_options
from lexora_router.config.positions import MAX_BYTES, Tree, read_map
from lexora_router.config.problems import ConfigError, Path, Problem, Where
from lexora_router.config.shape import ROOT, Shape
from lexora_router.config.state import SecretUrl, check_state, state_faults
from lexora_router.config.telemetry import apply_standard, check_telemetry
from lexora_router.config.tls_check import check_engine_tls, check_tls
from lexora_router.config.values import header_safe
from lexora_router.config.warn import warnings

SEARCH = (FilePath("config/lexora_config.yaml"), FilePath("lexora_config.yaml"), FilePath("/etc/lexora/config.yaml"))
MASK = "********"

__all__ = ["MASK", "SEARCH", "ConfigError", "Loaded", "Problem", "dump", "find", "load"]


@dataclass(frozen=True)
class Loaded:
    """A configuration that can be used, its file, what the operator should know, and what is open to the network."""

    config: Config
    path: FilePath | None
    warnings: tuple[str, ...]
    open: tuple[str, ...] = ()


def load(
    path: str | None, environ: Mapping[str, str], options: Mapping[str, Any] = MappingProxyType({}), *, search: bool = True
) -> Loaded:
    """Load the configuration: defaults, OpenTelemetry's variables, the file, `LEXORA_*` of `environ`, options of the command.

    `path` is the file the user named, None to look for one, unless `search` is false. `options` are values by key path, None
    for those that were not given. Raises ConfigError with every problem.
    """
    file = find(path, environ, search=search)
    tree = _read(file) if file else Tree()
    apply(environ, tree)
    apply_standard(environ, tree)
    apply_options(options, tree)
    config = None if tree.broken else _validate(tree)
    if config is not None:
        _check_keys(config, environ, tree)
        _check_salt(config, environ, tree)
        _check_authorities(config, tree)
        check_tls(config, tree)
        check_engine_tls(config, tree)
        check_state(config.state, tree)
        check_telemetry(config.telemetry, environ, tree)
        check_command_options(options, config, tree)
    if config is None or tree.problems:
        raise ConfigError(tree.problems)
    return Loaded(config, file, tuple(warnings(config, tree, environ)), tuple(openings(config)))


def dump(config: Config) -> str:
    """Return the whole effective configuration as YAML, with secrets masked."""
    return yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True, width=120)


def find(path: str | None, environ: Mapping[str, str], *, search: bool = True) -> FilePath | None:
    """Return the file that would be read, whether it is there or not; None when nothing is named and nothing found."""
    named = path or environ.get(FILE_VARIABLE)
    if named:
        return FilePath(named)
    return next((file for file in SEARCH if _present(file)), None) if search else None


def _present(file: FilePath) -> bool:
    try:
        file.stat()
    except PermissionError:
        return True  # reading it will say so; running on the defaults instead would hide it
    except OSError:
        return False
    return True


def _read(file: FilePath) -> Tree:
    source = str(file)
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            return _unreadable(Where(source), f"larger than {MAX_BYTES} bytes")
        return read_map(raw.decode("utf-8-sig"), source)
    except UnicodeDecodeError as error:
        return _unreadable(Where(source, raw.count(b"\n", 0, error.start) + 1), "not UTF-8 text")
    except OSError as error:
        return _unreadable(Where(source), f"cannot be read: {error.strerror}")


def _unreadable(where: Where, message: str) -> Tree:
    tree = Tree()
    tree.fail(where, message, broken=True)
    return tree


def _validate(tree: Tree) -> Config | None:
    data = _without_empty_sections(tree.data, ROOT)
    # pydantic checks across keys only where the keys themselves are right: do it first, so that all is said at once.
    for path, message in _cross_faults(data):
        tree.fail(tree.where(path), message, path)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False):
            for path, message in explain(fault, data):
                tree.fail(tree.where(path), message, path)
        return None


def _without_empty_sections(data: Any, form: Shape | None) -> Any:
    """Drop sections, maps and lists that have a name and nothing under it: all their keys are commented out."""
    if not isinstance(data, dict) or form is None:
        return data
    kept = {}
    for key, value in data.items():
        below = form.child(key)
        if value is None and below is not None and below.nested and not below.optional:
            continue
        kept[key] = _without_empty_sections(value, below)
    return kept


def _cross_faults(data: dict[str, Any]) -> Iterator[Fault]:
    yield from config_faults(data)
    for path, check in _CHECKS:
        for here, section in _sections(data, path):
            yield from (((*here, *below), message) for below, message in check(section))


def _sections(data: Any, path: Path, here: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the maps that the data has at a path, where `*` is any name."""
    if not isinstance(data, dict):
        return
    if not path:
        yield here, data
        return
    for name in data if path[0] == "*" else (path[0],):
        yield from _sections(data.get(str(name)), path[1:], (*here, name))


def _vllm_faults(vllm: Mapping[str, Any]) -> Iterator[Fault]:
    has_url = vllm.get("urls") or "url" in vllm
    yield from backend_faults(vllm if has_url else {**vllm, "url": ""}, discovers=False)  # it has a default


_CHECKS: tuple[tuple[Path, Callable[[Mapping[str, Any]], Iterator[Fault]]], ...] = (
    (("vllm",), _vllm_faults),
    (("server", "tls"), tls_faults),
    (("auth",), auth_faults),
    (("rate_limit",), rate_limit_faults),
    (("retry",), retry_faults),
    (("health",), health_faults),
    (("state",), state_faults),
    (("tenants", "*"), tenant_faults),
    (("routing",), routing_faults),
    (("routing", "classifier"), classifier_faults),
    (("routing", "backends", "*"), backend_faults),
    (("routing", "backends", "*", "discover"), discover_faults),
)


def _check_keys(config: Config, environ: Mapping[str, str], tree: Tree) -> None:
    """A key from the environment is seen by no model: check it here, before a call fails on it."""
    for name, backend in config.backends().items():
        key = backend.resolve_key(environ)
        if key is not None and not header_safe(key):
            path: Path = ("vllm",) if config.single_backend else ("routing", "backends", name)
            path = (*path, "api_key_env")
            tree.fail(tree.where(path), "the variable's value must be printable ASCII without spaces", path)


def _check_salt(config: Config, environ: Mapping[str, str], tree: Tree) -> None:
    """The same of the secret of cache salts."""
    secret, path = config.auth.salt_secret(environ), ("auth", "cache_salt_secret_env")
    if secret and len(secret) < MIN_SALT_SECRET:
        tree.fail(tree.where(path), f"the variable's value must have at least {MIN_SALT_SECRET} characters", path)


def _check_authorities(config: Config, tree: Tree) -> None:
    """A file that TLS cannot use would end the start later, without a word about the key."""
    named: dict[Path, str | None] = {("telemetry", "ca_file"): config.telemetry.ca_file}
    named |= {("routing", "backends", name, "ca_file"): backend.ca_file for name, backend in config.backends().items()}
    for path, file in named.items():
        if file is None:
            continue
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
        except ssl.SSLError:
            tree.fail(tree.where(path), "is no PEM file with certificates", path)
        except OSError as error:
            tree.fail(tree.where(path), f"cannot be read: {error.strerror}", path)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, SecretUrl):
        return value.shown
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value
