"""A child process that is watched: its output passed on line by line, its end reported, time to end."""

import asyncio
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

STOP_SECONDS = 10.0
_LINE_BYTES = 2**20


class ChildEnded(Exception):
    """The child ended while it was still needed; the message says so."""


class Child:
    """A command of this program in a process of its own; start it with `Child.start`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, show: Callable[[str, str], None]) -> None:
        self.name = name
        self._process = process
        self._show = show
        self._lines: list[str] = []
        self._news = asyncio.Event()
        self._reader = asyncio.create_task(self._read(), name=f"lexora-{name}")

    @classmethod
    async def start(
        cls, name: str, arguments: Sequence[str], env: Mapping[str, str], show: Callable[[str, str], None]
    ) -> "Child":
        """Run `lexora ARGUMENTS`; `show(name, line)` gets its output."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lexora_cli", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(env),
            limit=_LINE_BYTES,
            # Ctrl-C is for the parent, which ends its children in order.
            start_new_session=True,
        )
        return cls(name, process, show)

    async def says(self, pattern: str) -> re.Match[str]:
        """The first match in a line of the output so far or to come. Raises ChildEnded."""
        while True:
            self._news.clear()
            for line in self._lines:
                if found := re.search(pattern, line):
                    self._lines.clear()
                    return found
            if self._reader.done():
                raise ChildEnded(f"{self.name} ended with exit code {await self._process.wait()}")
            await self._news.wait()

    async def ended(self) -> int:
        """The exit code, when there is one."""
        return await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, then patience, then SIGKILL; return when the process and its output are at their ends."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self._process.stdout is not None
        seen = 0
        async for raw in self._process.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            self._show(self.name, line)
            if seen < 1000:  # only the beginning is searched
                seen += 1
                self._lines.append(line)
                self._news.set()
        self._news.set()
