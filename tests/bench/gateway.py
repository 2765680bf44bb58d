"""What is measured: a gateway that the rig starts, the bare relay, or something already running."""

from __future__ import annotations

import http.client
import os
import shlex
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench import procs
from tests.bench.build import RigError
from tests.bench.engine import post
from tests.bench.procs_net import listening_ports

ROOT = Path(__file__).parents[2]
PROBE = {"model": "bench-64-0", "messages": [{"role": "user", "content": "hi"}]}
START_LIMIT_S = 60
PROBE_TIMEOUT_S = 2
LOG_LIMIT = 4 << 20

# The log is on and goes to a file: its cost is part of what is measured. Queueing is not: every stream has a slot.
CONFIG = """\
vllm: {{url: "{engine}", max_concurrency: 1024}}
server: {{host: "127.0.0.1"}}
rate_limit: {{enabled: false}}
logging: {{level: "INFO", format: "json"}}
"""


@dataclass(frozen=True)
class Target:
    """Where a load goes. `pid` is the root of the process tree whose CPU counts; None: nobody's."""

    name: str
    port: int
    pid: int | None = None


def serve_command() -> list[str]:
    """How `lexora serve` starts from the environment of this interpreter."""
    command = Path(sys.executable).with_name("lexora")
    return [str(command), "serve", "--config", "{config}", "--port", "0", "--grpc-port", "0"]


def baseline_command() -> list[str]:
    """How the bare relay starts."""
    return [sys.executable, "-m", "tests.bench.baseline", "{engine}"]


class Gateway:
    """One start of a gateway in front of the engine; ends with `stop`.

    `command` may hold {config}, {engine} (http://host:port) and {port} (a free one). Without {port} the
    port is found among those the process listens on.
    """

    def __init__(self, name: str, command: list[str], engine_port: int, run: Path, cpus: procs.Cpus | None) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log = run / f"{name}.log"
        self.startup_s = 0.0
        config = run / "lexora_config.yaml"
        engine = f"http://127.0.0.1:{engine_port}"
        config.write_text(CONFIG.format(engine=engine))
        self._port = _free_port() if any("{port}" in word for word in command) else None
        words = {"{config}": str(config), "{engine}": engine, "{port}": str(self._port)}
        self._command = [_fill(word, words) for word in command]
        self._cpus = cpus
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Target:
        """Starts it and waits for its first good answer. Raises RigError with the end of its log."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("LEXORA_", "PYTHON"))}
        began = time.monotonic()
        with self.log.open("ab") as log, procs.on_cpus(self._cpus):
            try:
                process = self.process = subprocess.Popen(
                    self._command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            except OSError as error:
                raise RigError(f"{self.name} could not start: {error}") from error
        port = self._wait_until_it_answers(process, began + START_LIMIT_S)
        self.startup_s = time.monotonic() - began
        return Target(self.name, port, process.pid)

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes], until: float) -> int:
        last = "it listens on no port"
        while time.monotonic() < until and process.poll() is None:
            ports = [self._port] if self._port else listening_ports(procs.tree(process.pid))
            for port in ports:
                try:
                    status, body = post(port, "/v1/chat/completions", PROBE, PROBE_TIMEOUT_S)
                except (OSError, http.client.HTTPException) as error:
                    last = f"port {port}: {error!r}"
                    continue
                if status == 200 and b'"choices"' in body:
                    return port
                last = f"port {port}: {status} {body[:200]!r}"
            time.sleep(0.01)
        ended = process.poll()
        self.stop()
        why = f"ended with {ended}" if ended is not None else f"gave no answer in {START_LIMIT_S} s ({last})"
        raise RigError(f"{self.name} {why}: {shlex.join(self._command)}\n{self.tail()}")

    def tail(self) -> str:
        """The end of its output."""
        return self.log.read_bytes()[-2000:].decode(errors="replace").strip()

    def trim_log(self) -> None:
        """Empties the log when it is long; called between cases, so that a disk never fills."""
        if self.log.stat().st_size > LOG_LIMIT:
            os.truncate(self.log, 0)

    def stop(self) -> None:
        """Ends it and everything it started; nothing to do before `start`."""
        if self.process:
            procs.stop(self.process)


def _fill(word: str, words: dict[str, str]) -> str:
    for key, value in words.items():
        word = word.replace(key, value)
    return word


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
