"""Real processes for tests: started on free ports, known by what they print, ended by pid."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.preloaded import MODULES, Preloaded

START_SECONDS = 40.0
STOP_SECONDS = 10.0
REPOSITORY = Path(__file__).resolve().parents[2]
_INTERPRETER = ("PYTHON", "MALLOC_", "LD_")  # variables that are read before the first import
_STARTED_WITH = dict(os.environ)  # and what they were for this interpreter, whose fork server has the same


class Process:
    """A child process whose output is read all the time, so that it never blocks on a full pipe.

    The product's own modules are imported already, unless it has to be a `fresh` interpreter.
    """

    def __init__(
        self, argv: Sequence[str], *, env: dict[str, str] | None = None, cwd: Path | None = None, fresh: bool = False
    ) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LEXORA_")}
        self._popen: subprocess.Popen[str] | Preloaded
        whole = clean | (env or {})
        fresh = fresh or any(name.startswith(_INTERPRETER) and _STARTED_WITH.get(name) != whole[name] for name in whole)
        if not fresh and list(argv[:2]) == [sys.executable, "-m"] and argv[2] in MODULES:
            self._popen = Preloaded(argv, env=whole, cwd=cwd)
        else:
            self._popen = subprocess.Popen(
                list(argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=whole, cwd=cwd
            )
        self.lines: list[str] = []
        self._news: queue.Queue[None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def output(self) -> str:
        return "".join(self.lines)

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def wait_for(self, pattern: str, seconds: float = START_SECONDS) -> re.Match[str]:
        """The first match of `pattern` in the output; fails with the whole output when it does not come."""
        until = time.monotonic() + seconds
        while True:
            found = re.search(pattern, self.output)
            if found:
                return found
            left = until - time.monotonic()
            if left <= 0 or (not self.alive and not self._reader.is_alive()):
                raise AssertionError(f"{pattern!r} was not printed (exit {self._popen.poll()}):\n{self.output}")
            try:
                self._news.get(timeout=min(left, 0.2))
            except queue.Empty:
                continue

    def wait_ready(self, pattern: str) -> re.Match[str]:
        """As `wait_for`, for constructors: a process that does not get ready is ended."""
        try:
            return self.wait_for(pattern)
        except BaseException:
            self.stop()
            raise

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Exit code; fails when the process does not end in time."""
        code = self._popen.wait(timeout=seconds)
        self._reader.join(timeout=seconds)
        return code

    def stop(self) -> int:
        """SIGTERM, then patience, then SIGKILL; the exit code."""
        if self.alive:
            self._popen.send_signal(signal.SIGCONT)
            self._popen.terminate()
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self.wait()
        finally:
            if self._popen.stdout is not None:
                self._popen.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self.lines.append(line)
            self._news.put(None)


def python(module: str, *arguments: str) -> list[str]:
    """Command line of a module of this interpreter."""
    return [sys.executable, "-m", module, *arguments]
