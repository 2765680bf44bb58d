"""How long the facade waits for a slow client, and how it finds that nothing can be written to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

# A head is a packet or two; a client that needs longer only holds a connection.
HEAD_SECONDS = 30.0
# Outlives a lost packet's retransmissions and a client that pauses between its pieces.
BODY_SILENCE_SECONDS = 60.0
# A reader that pauses for longer must buffer by itself: its call keeps a slot.
WRITE_STALL_SECONDS = 60.0
# Longer than the idle time after which the usual clients drop a pooled connection by themselves.
IDLE_SECONDS = 75.0
# A stalled connection is looked at so many times before it is cut off, so the cut is late by a tenth at most.
_LOOKS = 10


@dataclass(frozen=True, slots=True)
class Patience:
    """Bounds on a slow client, in seconds.

    `head`: from a request head's first byte to its last. `body`: the longest silence inside a body. `write`: the longest
    time in which not one byte of an answer can be written. `idle`: the longest time between an answer and the next request.
    """

    head: float = HEAD_SECONDS
    body: float = BODY_SILENCE_SECONDS
    write: float = WRITE_STALL_SECONDS
    idle: float = IDLE_SECONDS


PATIENCE = Patience()


class StallWatch:
    """Cuts a connection off when its write buffer has not shrunk for `seconds`.

    Nothing runs while the client reads as fast as it is written to. From the first `start` on one timer looks at the
    buffer now and then, until the buffer is below the transport's limit again or the connection has ended.
    """

    __slots__ = ("_loop", "_moved_at", "_paused", "_seconds", "_size", "_timer", "_transport")

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, seconds: float) -> None:
        self._loop = loop
        self._transport = transport
        self._seconds = seconds
        self._paused = False
        self._size = -1
        self._moved_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """The buffer is over the transport's limit, or the connection is closing and has to be flushed first."""
        self._paused = True
        if self._timer is None:
            self._moved()
            self._wait()

    def resume(self) -> None:
        """The buffer is below the limit again."""
        self._paused = False
        # The same size at the next look would be chance.
        self._size = -1

    def stop(self) -> None:
        """The connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if not self._paused and not self._transport.is_closing():
            return
        # Nothing is added while the writer waits, so every change is something the client took.
        if self._transport.get_write_buffer_size() != self._size:
            self._moved()
        elif self._loop.time() - self._moved_at >= self._seconds:
            self._transport.abort()
            return
        self._wait()

    def _moved(self) -> None:
        self._size = self._transport.get_write_buffer_size()
        self._moved_at = self._loop.time()

    def _wait(self) -> None:
        self._timer = self._loop.call_later(self._seconds / _LOOKS, self._look)
