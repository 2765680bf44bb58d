"""A simulated engine and a gateway in front of it, as two child processes."""

import asyncio
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import yaml

from lexora_cli.child_process import Child, ChildEnded
from lexora_cli.demo_text import lines_to_try
from lexora_cli.screen import complain, out, plain, plain_lines
from lexora_contract.escape import escaped
from lexora_router.process.launch import stop_event

HOST = "127.0.0.1"
START_SECONDS = 30.0
# Slow enough to see tokens come.
PACE = ("--ttft-ms", "80", "--itl-ms", "20")
# Beside the model of the demo, so that there is something to choose between, and something that makes vectors.
CODER, EMBEDDER = "qwen3-coder", "bge-m3"
RULES = [{"capability": "code", "words": ["code", "python", "stack trace", "関数"]}]

_Value = TypeVar("_Value")


class _Stopped(Exception):
    """The person had enough."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where to listen, 0 for any free port."""

    engine: int
    http: int
    grpc: int


class Demo:
    """`run` once; then `code` is the exit code."""

    def __init__(self, model: str, ports: Ports) -> None:
        self.code = 0
        self._model = model
        self._ports = ports
        self._children: list[Child] = []
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Start both, print what to try, wait for Ctrl-C or SIGTERM, end both."""
        self._stop = stop_event()
        try:
            with tempfile.TemporaryDirectory(prefix="lexora-demo-") as folder:
                await self._start(Path(folder))
                await self._until_the_end()
        except _Stopped:
            pass
        except ChildEnded as error:
            complain(str(error))
            self.code = 1
        except TimeoutError:
            complain(f"the demo was not ready within {START_SECONDS:.0f} seconds")
            self.code = 1
        finally:
            for child in reversed(self._children):  # the gateway first: its calls need the engine
                await child.stop()

    async def _start(self, folder: Path) -> None:
        async with asyncio.timeout(START_SECONDS):
            port = str(_free("the simulated engine", self._ports.engine))
            models = dict.fromkeys((self._model, CODER))
            named = [option for name in models for option in ("--model", name)]
            engine = await self._child(
                *("engine", "sim", "--host", HOST, "--port", port, *named, "--embedding-model", EMBEDDER, *PACE)
            )
            address = (await self._or_stop(engine.says(r"serving .* on (http://\S+)"))).group(1)
            file = folder / "lexora_config.yaml"
            file.write_text(yaml.safe_dump(self._config(address)))
            gateway = await self._child("gateway", "serve", "--config", str(file))
            line = (await self._or_stop(gateway.says(r"^(?=.*\bhttp=\S)(?=.*\bgrpc=\S).*\bserving\b.*"))).group(0)
            http, grpc = _field(line, "http"), _field(line, "grpc")
            await self._or_stop(_healthy(http))
        plain("")
        plain_lines(lines_to_try(http, grpc, self._model, lexora=_called("lexora") or "lexora", buf=_called("buf")))
        out().print("[bold]Ready.[/bold] Ctrl-C ends both.\n")

    async def _until_the_end(self) -> None:
        first = asyncio.create_task(self._first_end())
        name, code = await self._or_stop(first)
        raise ChildEnded(f"{name} ended with exit code {code}")

    async def _first_end(self) -> tuple[str, int]:
        ends = {asyncio.create_task(child.ended()): child.name for child in self._children}
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in ends:
                task.cancel()
        first = done.pop()
        return ends[first], first.result()

    async def _child(self, name: str, *arguments: str) -> Child:
        env = {key: value for key, value in os.environ.items() if not key.startswith("LEXORA_")}
        child = await Child.start(name, arguments, env, self._show)
        self._children.append(child)
        return child

    async def _or_stop(self, wanted: Awaitable[_Value]) -> _Value:
        """The value, unless the person wants to leave first."""
        task = asyncio.ensure_future(wanted)
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise _Stopped
            return task.result()
        finally:
            stop.cancel()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _show(self, name: str, line: str) -> None:
        try:
            out().print(f"{name:<7} | {escaped(line)}", style="dim", markup=False)
        except SystemExit:  # what rich makes of a reader that has left; here it would leave the children alone
            self._stop.set()

    def _config(self, engine: str) -> dict[str, object]:
        http, grpc = _free("HTTP", self._ports.http), _free("gRPC", self._ports.grpc)
        return {
            "server": {"host": HOST, "port": http, "grpc_port": grpc},
            "health": {"interval": 1.0},
            "routing": {
                "default_backend": "demo",
                "default_model_for_unknown_task": self._model,
                "classifier": {"enabled": True, "type": "rules", "rules": RULES},
                "backends": {"demo": {"url": engine, "models": self._models()}},
            },
        }

    def _models(self) -> list[dict[str, object]]:
        good_at = {self._model: "general", CODER: "code", EMBEDDER: "embedding"}
        return [{"name": name, "capabilities": [capability]} for name, capability in good_at.items()]


def _called(program: str) -> str:
    """What a program is called by from here: its name where the shell finds it, else its path; empty when it is not there."""
    path = Path(sys.executable).with_name(program)
    if shutil.which(program):
        return program
    if not path.exists():
        return ""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _free(what: str, port: int) -> int:
    """The port, or 0 and a notice when it is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            complain(f"port {port} for {what} cannot be had ({error.strerror}); taking a free one")
            return 0
    return port


def _field(line: str, name: str) -> str:
    found = re.search(rf"\b{name}=(\S+)", line)
    assert found is not None, line
    return found.group(1)


async def _healthy(http: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            response = await client.get(f"{http}/health")
            if response.status_code == 200 and response.json()["status"] == "healthy":
                return
            await asyncio.sleep(0.05)
