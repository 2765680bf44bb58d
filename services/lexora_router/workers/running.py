"""A worker process: started, spoken to, ended."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from lexora_router.workers import frames
from lexora_router.workers.frames import Header
from lexora_router.workers.plan import Place

Heard = Callable[["Running", Header, bytes], None]


class Running:
    """One process of a worker; make it with `start`. `ended` is awaited for its exit code."""

    def __init__(self, number: int, popen: subprocess.Popen[bytes], link: socket.socket, heard: Heard, now: float) -> None:
        self.number = number
        self.pid = popen.pid
        self.started = now
        self.kept = b""
        self.drains = 0.0  # seconds, as it has said; more than the plan has where a reload made it so
        self.adopted: dict[int, bytes] = {}
        self.serves = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = loop.create_future()
        self._popen = popen
        self._link = link
        self._heard = heard
        self._writer: asyncio.StreamWriter | None = None
        self._unsent: list[bytes] = []
        self._reading = asyncio.create_task(self._read(), name=f"lexora-worker-{number}")
        self._pidfd = os.pidfd_open(popen.pid)
        loop.add_reader(self._pidfd, self._on_end)

    @classmethod
    def start(cls, command: Sequence[str], place: Place, heard: Heard, now: float) -> "Running":
        """Start the process; `heard` gets what it says. It is in a session of its own: Ctrl-C is for the supervisor."""
        ours, its = socket.socketpair()
        with its:
            placed = replace(place, link=its.fileno())
            popen = subprocess.Popen(  # noqa: S603 - the command that started this process
                command,
                stdin=subprocess.DEVNULL,
                env=placed.save(),
                pass_fds=(its.fileno(), *place.sockets.values()),
                start_new_session=True,
            )
        ours.setblocking(False)
        return cls(place.number, popen, ours, heard, now)

    def send(self, header: Header, body: bytes = b"") -> None:
        """Send it a frame; what it does not read waits."""
        frame = frames.pack(header, body)
        if self._writer is None:
            self._unsent.append(frame)
        elif not self._writer.is_closing():
            self._writer.write(frame)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if not self.ended.done():
            self._popen.send_signal(number)

    async def served(self) -> bool:
        """Wait until it serves or has ended; whether it serves."""
        waiting = asyncio.create_task(self.serves.wait())
        await asyncio.wait((waiting, self.ended), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        return self.serves.is_set() and not self.ended.done()

    async def _read(self) -> None:
        reader, self._writer = await asyncio.open_unix_connection(sock=self._link)
        self._writer.writelines(self._unsent)
        self._unsent.clear()
        try:
            while (frame := await frames.read(reader)) is not None:
                self._heard(self, *frame)
        except ValueError as error:
            sys.stderr.write(f"lexora: worker {self.number} says what is no frame: {error}\n")
            self.signal(signal.SIGKILL)
        finally:
            self._writer.close()

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._popen.wait()
        # What it has said last is read before its end is known.
        self._reading.add_done_callback(lambda _: self.ended.set_result(code))
