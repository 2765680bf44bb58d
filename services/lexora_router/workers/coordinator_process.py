"""The coordinator of the workers: a process that the supervisor keeps, with a socket that only this user can reach."""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from lexora_router.workers.log_lines import LogLines
from lexora_router.workers.plan import COORDINATOR
from lexora_router.workers.restarts import Restarts

# Of its start. Workers do not wait for it longer: without it each has its share of the limits.
READY_SECONDS = 10.0
_LOOK_SECONDS = 0.02
# Where a service's own files go, by the system that starts it; else a temporary folder.
_FOLDERS = ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR")


class CoordinatorProcess:
    """Start it with `keep`, in a task that is cancelled at the end; `socket` is where workers find it."""

    def __init__(self, log: LogLines, environ: Mapping[str, str] = os.environ) -> None:
        folders = (environ.get(name, "").split(":")[0] for name in _FOLDERS)
        # After `sudo -u` a variable may name the folder of another user.
        parent = next((each for each in folders if each and os.access(each, os.W_OK | os.X_OK)), None)
        self._folder = Path(tempfile.mkdtemp(prefix="lexora-", dir=parent))  # of mode 0700
        self.socket = str(self._folder / "state.sock")
        self._log = log

    async def ready(self) -> None:
        """Wait until it can be reached, or for a while."""
        end = time.monotonic() + READY_SECONDS
        while not Path(self.socket).exists() and time.monotonic() < end:  # noqa: ASYNC110, ASYNC240 - once, at the start
            await asyncio.sleep(_LOOK_SECONDS)

    async def keep(self) -> None:
        """Start it, again when it ends, until cancelled."""
        restarts = Restarts()
        while True:
            begun = time.monotonic()
            try:
                how: dict[str, object] = await self._run()
            except OSError as error:  # the machine has no memory, process or file left for it now
                how = {"problem": error.strerror}
            wait = restarts.delay(time.monotonic() - begun)
            self._log.error("coordinator_died", **how, again_in=wait)
            await asyncio.sleep(wait)

    async def _run(self) -> dict[str, object]:
        """Run it once; gives how it has ended. Raises OSError when it cannot be started."""
        process = subprocess.Popen(  # noqa: ASYNC220, S603 - it is this program's own, and starting takes a millisecond
            [sys.executable, "-m", COORDINATOR, self.socket, str(os.getpid())],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return {"pid": process.pid, "code": await _ended(process)}
        finally:
            process.kill()  # it outlives every polite signal
            process.wait()

    def remove(self) -> None:
        """Remove its folder."""
        with contextlib.suppress(OSError):
            Path(self.socket).unlink(missing_ok=True)
            self._folder.rmdir()


async def _ended(process: subprocess.Popen[bytes]) -> int:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    number = os.pidfd_open(process.pid)
    loop.add_reader(number, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(number)
        os.close(number)
    return process.wait()
