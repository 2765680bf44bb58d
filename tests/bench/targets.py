"""What is measured: Lexora, the bare relay, nginx, vllm-router, or any other gateway that the rig can start."""

from __future__ import annotations

import http.client
import os
import shlex
import shutil
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

# The log is on and goes to a file: its cost is part of what is measured. Every stream has a slot: queueing is another subject.
CONFIG = """\
vllm: {url: "{engine}", max_concurrency: 20000}
server: {host: "127.0.0.1", max_connections_per_address: 9000}
rate_limit: {enabled: true, default_rate: 1000000, default_burst: 1000000, max_concurrent: 20000}
logging: {level: "INFO", format: "json"}
"""

NGINX = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 16384; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 1000000000;
    client_body_buffer_size 2m;
    client_max_body_size 64m;
    upstream engine {
        server {address};
        keepalive 1024;
        keepalive_requests 1000000000;
    }
    server {
        listen 127.0.0.1:{port} backlog=4096;
        location / {
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 600s;
        }
    }
}
"""

LEXORA, RELAY, PLAIN_PROXY, VLLM_ROUTER = "lexora", "relay", "nginx", "vllm-router"


@dataclass(frozen=True)
class Target:
    """Where a load goes. `pid` is the root of the process tree whose CPU counts; None for the engine itself."""

    name: str
    port: int
    pid: int | None = None


def serve_command() -> list[str]:
    """How `lexora serve` starts from the environment of this interpreter."""
    command = Path(sys.executable).with_name("lexora")
    return [str(command), "serve", "--config", "{config}", "--port", "0", "--grpc-port", "0"]


def relay_command() -> list[str]:
    """How the bare relay starts."""
    return [sys.executable, "-m", "tests.bench.relay", "{engine}"]


def client_command(kind: str) -> list[str]:
    """How the server starts that asks the engine with one HTTP client or another: "own" or "aiohttp"."""
    return [sys.executable, "-m", "tests.bench.client_relay", kind, "{engine}"]


def peers() -> dict[str, list[str]]:
    """The commands of the peers that are installed: nginx, and vllm-router in `.venv-bench` or on the PATH."""
    found = {}
    if nginx := shutil.which(PLAIN_PROXY, path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        found[PLAIN_PROXY] = [nginx, "-p", "{folder}", "-c", "nginx.conf", "-e", "stderr"]
    if router := shutil.which(VLLM_ROUTER, path=f"{ROOT / '.venv-bench' / 'bin'}:{os.environ.get('PATH', '')}"):
        found[VLLM_ROUTER] = [
            *(router, "--host", "127.0.0.1", "--port", "{port}", "--worker-urls", "{engine}", "--policy", "round_robin"),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", "{port2}", "--log-level", "warning"),
        ]
    return found


class Gateway:
    """One start of a gateway in front of the engine; ends with `stop`, or with its `with` block.

    `command` may hold {config} (Lexora's), {folder} (with nginx.conf in it), {engine} (http://host:port), {port} and {port2}
    (free ones). The port that answers is found among those that the process listens on.
    """

    def __init__(
        self, name: str, command: list[str], engine_port: int, run: Path, cpus: procs.Cpus | None, *, config: str = CONFIG
    ) -> None:
        self.folder = run / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log = self.folder / "log"
        self.startup_s = 0.0
        file = self.folder / "lexora_config.yaml"
        words = {
            **{"{config}": str(file), "{folder}": str(self.folder), "{port}": str(_free_port()), "{port2}": str(_free_port())},
            **{"{engine}": f"http://127.0.0.1:{engine_port}", "{address}": f"127.0.0.1:{engine_port}"},
        }
        file.write_text(_fill(config, words))
        (self.folder / "nginx.conf").write_text(_fill(NGINX, words))
        self._command = [_fill(word, words) for word in command]
        self._cpus = cpus
        self.process: subprocess.Popen[bytes] | None = None
        self.target = Target(name, 0)

    def __enter__(self) -> Target:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

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
        self.target = Target(self.name, port, process.pid)
        return self.target

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes], until: float) -> int:
        last = "it listens on no port"
        while time.monotonic() < until and process.poll() is None:
            for port in listening_ports(procs.tree(process.pid)):
                try:
                    status, body = post(port, "/v1/chat/completions", PROBE, PROBE_TIMEOUT_S)
                except (OSError, http.client.HTTPException) as error:
                    last = f"port {port}: {error!r}"
                    continue
                if status == 200 and b'"choices"' in body:
                    return port
                last = f"port {port}: {status} {body[:200]!r}"
            time.sleep(0.005)
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
