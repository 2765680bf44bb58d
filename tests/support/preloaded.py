"""Processes that are forked from one that has imported the product: a start costs what the product does, not its imports."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

MODULES = ("lexora_cli", "lexora_router", "lexora_sim")
multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.support.preload"])


class Preloaded:
    """`python -m MODULE ARGUMENTS`, with what `Process` uses of a `subprocess.Popen`; stdout and stderr are one pipe.

    It is ended with the tests at the latest.
    """

    def __init__(self, argv: Sequence[str], *, env: dict[str, str], cwd: Path | None) -> None:
        reading, writing = os.pipe()
        self.args = list(argv)
        self.stdout = os.fdopen(reading, encoding="utf-8")
        self._lock = threading.Lock()  # the exit code can be read once
        self._process = ForkServerProcess(
            target=_run, args=(_Descriptor(writing), list(argv[2:]), env, str(cwd or Path.cwd())), daemon=True
        )
        try:
            self._process.start()
        finally:
            os.close(writing)
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        with self._lock:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        connection.wait([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


class _Descriptor:
    """An open file that goes with its number into the process that is started."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __getstate__(self) -> Any:
        return DupFd(self.number)

    def __setstate__(self, state: Any) -> None:
        self.number = state.detach()


def _run(output: _Descriptor, argv: list[str], env: dict[str, str], cwd: str) -> None:
    """In the new process: be `python -m`."""
    for number in (1, 2):
        os.dup2(output.number, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # those of the server that forked it
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = argv
    runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
