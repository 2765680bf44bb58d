"""The stub engine and the load generator, as seen from Python."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

from tests.bench import procs
from tests.bench.build import RigError, Tools

if TYPE_CHECKING:
    from types import TracebackType

LISTENING = re.compile(rb"listening on 127\.0\.0\.1:(\d+)")
Json = dict[str, Any]


def get(port: int, path: str, timeout: float = 5) -> tuple[int, bytes]:
    """Status and body of a GET to the loopback. Raises OSError or http.client.HTTPException."""
    return _ask(port, "GET", path, None, timeout)


def post(port: int, path: str, body: Json, timeout: float = 20) -> tuple[int, bytes]:
    """Status and body of a POST of JSON to the loopback. Raises OSError or http.client.HTTPException."""
    return _ask(port, "POST", path, json.dumps(body).encode(), timeout)


def _ask(port: int, method: str, path: str, body: bytes | None, timeout: float) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Engine:
    """A running stub engine; ends with the `with` block."""

    def __init__(self, tools: Tools, port: int = 0) -> None:
        self._command = [str(tools.engine), str(port)]
        self.port = 0

    def __enter__(self) -> Engine:
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert self.process.stdout
        found = LISTENING.search(self.process.stdout.readline())
        if not found:
            self.__exit__(None, None, None)
            raise RigError(f"the stub engine did not start: {' '.join(self._command)}")
        self.port = int(found[1])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        procs.stop(self.process)
        if self.process.stdout:
            self.process.stdout.close()

    @property
    def pid(self) -> int:
        """The engine's process id."""
        return self.process.pid

    def stats(self) -> dict[str, int]:
        """What it counted: requests, unary, streams, finished, aborted, chunks, active, max_active ..."""
        counts: dict[str, int] = json.loads(get(self.port, "/stats")[1])
        return counts

    def settle(self, seconds: float = 10) -> bool:
        """Waits until no stream is under way; False when one still is."""
        return procs.wait_for(lambda: not self.stats()["active"], seconds, 0.05)


def load(tools: Tools, port: int, *options: str | float) -> Json:
    """One run of the load generator (src/load.c lists its options and what it prints).

    Raises RigError when it could not run; wrong answers are in the result's `errors`.
    """
    command = [str(tools.load), "--port", str(port), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if not done.stdout:
        raise RigError(f"{' '.join(command)} gave nothing: {done.stderr.strip()}")
    result: Json = json.loads(done.stdout)
    return result
