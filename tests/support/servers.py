"""The product's own processes, ready to be called: engines, routers, gateways, or both in one."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.process import REPOSITORY, Process, python

# Reading the machine's certificates for each call would take longer than the call.
_PLAIN: dict[str, Any] = {"verify": False}


class Simulator(Process):
    """`python -m lexora_sim`; `url` is where it listens."""

    def __init__(self, *arguments: str, model: str = "qwen3-32b", port: int = 0) -> None:
        super().__init__(python("lexora_sim", "--port", str(port), "--model", model, *arguments))
        self.url = self.wait_ready(r"on (http://\S+)").group(1)

    def stats(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}/sim/stats", **_PLAIN).raise_for_status().json())

    def requests(self, limit: int = 100) -> list[dict[str, Any]]:
        found = httpx.get(f"{self.url}/sim/requests", params={"limit": limit}, **_PLAIN).raise_for_status().json()
        return list(found["requests"] if isinstance(found, dict) else found)

    def posts(self) -> list[dict[str, Any]]:
        """The calls that came, oldest first, without probes and listings."""
        return [request for request in self.requests() if request["method"] == "POST" and request["path"] != "/sim/reset"]

    def fault(self, fault: str, **options: Any) -> None:
        httpx.post(f"{self.url}/sim/faults", json={"fault": fault, **options}, **_PLAIN).raise_for_status()

    def clear(self) -> None:
        httpx.delete(f"{self.url}/sim/faults", **_PLAIN).raise_for_status()
        httpx.post(f"{self.url}/sim/reset", **_PLAIN).raise_for_status()


class Gateway(Process):
    """`lexora serve`, or `lexora router` plus `lexora gateway`: `http` is a base URL, `grpc` is host:port."""

    def __init__(
        self, config: dict[str, Any], folder: Path, *, env: dict[str, str] | None = None, command: Sequence[str] = ()
    ) -> None:
        self.config_file = write_config(config, folder)
        super().__init__([*(command or LEXORA), "serve", "--config", str(self.config_file)], env=env, cwd=folder)
        ready = self.wait_ready(r".*\bserving\b.*")
        line = plain(ready.group(0))
        self.http = re.search(r'http(?:=|":")(https?://[^\s"]+)', line).group(1)  # type: ignore[union-attr]
        self.grpc = re.search(r'\bgrpc(?:=|":")([^\s"]+)', line).group(1)  # type: ignore[union-attr]
        self.admin, self.admin_grpc = (_named(line, name) for name in ("admin", "admin_grpc"))
        self.headers: dict[str, str] = {}  # credentials of an operator

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of a metric whose labels match."""
        answer = httpx.get(f"{self.admin or self.http}/metrics", headers=self.headers, **_PLAIN)
        return metric(answer.raise_for_status().text, name, **labels)


def _named(line: str, name: str) -> str:
    """What a line of the log says under a name; empty for nothing."""
    found = re.search(rf'\b{name}(?:=|":")([^\s"]+)', line)
    return found.group(1) if found else ""


class Facade(Process):
    """`lexora gateway` in front of the router of another process; `http` is a base URL."""

    def __init__(self, gateway: Gateway, env: dict[str, str] | None = None) -> None:
        super().__init__([*LEXORA, "gateway", "--router", gateway.grpc, "--config", str(gateway.config_file)], env=env)
        line = plain(self.wait_ready(r".*\bserving\b.*").group(0))
        self.http = re.search(r'http(?:=|":")(https?://[^\s"]+)', line).group(1)  # type: ignore[union-attr]


@contextlib.contextmanager
def asgi_server(router: str, *options: str) -> Iterator[tuple[str, Process]]:
    """The facade on a server that is not the product's own, in front of the router of another process; its base URL."""
    with Process(python("tests.support.asgi_server", router, *options)) as process:
        yield process.wait_ready(r"serving http=(\S+)").group(1), process


LEXORA = python("lexora_cli")


def base_config(**backends: dict[str, Any]) -> dict[str, Any]:
    """Loopback, free ports, fast probes; `backends` by name, the first one the default."""
    config: dict[str, Any] = {
        "server": {"host": "127.0.0.1", "port": 0, "grpc_port": 0, "metrics_port": 0},
        "health": {"interval": 0.2, "timeout": 1.0},
        "rate_limit": {"enabled": False},
    }
    if backends:
        config["routing"] = {"default_backend": next(iter(backends)), "backends": backends}
    return config


def calm_config(**backends: dict[str, Any]) -> dict[str, Any]:
    """The same with one attempt per call and breakers that stay closed: for tests of what one attempt comes to."""
    config = base_config(**backends)
    config["retry"] = {"max_retries": 0}
    config["health"] |= {"failure_threshold": 1000, "min_calls": 1000}
    return config


def write_config(config: dict[str, Any], folder: Path) -> Path:
    path = folder / "lexora_config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def metric(text: str, name: str, **labels: str) -> float:
    total = 0.0
    for line in text.splitlines():
        found = re.fullmatch(rf"{re.escape(name)}(?:\{{(.*)\}})? (\S+)", line)
        if found and all(f'{key}="{value}"' in (found.group(1) or "") for key, value in labels.items()):
            total += float(found.group(2))
    return total


def plain(text: str) -> str:
    """Without terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


__all__ = [
    "LEXORA",
    "REPOSITORY",
    "Facade",
    "Gateway",
    "Simulator",
    "asgi_server",
    "base_config",
    "calm_config",
    "metric",
    "plain",
    "write_config",
]
