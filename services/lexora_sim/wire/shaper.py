"""Ways to write slowly or in pieces."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

_END = b""  # in the queue: call `then`


class Pacer:
    """Write pieces in order with `gap` seconds between them; `write` and the last callback run on the loop."""

    def __init__(self, write: Callable[[bytes], None], gap: float) -> None:
        self._write = write
        self._gap = gap
        self._queue: deque[bytes] = deque()
        self._then: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def push(self, piece: bytes) -> None:
        """Queue one piece."""
        self._queue.append(piece)
        if self._timer is None:
            self._next()

    def finish(self, then: Callable[[], None]) -> None:
        """Call `then` once everything is written."""
        self._then = then
        self.push(_END)

    def cancel(self) -> None:
        """Write nothing more."""
        self._queue.clear()
        self._then = None
        if self._timer is not None:
            self._timer.cancel()

    def _next(self) -> None:
        self._timer = None
        if not self._queue:
            return
        piece = self._queue.popleft()
        if piece == _END:
            if self._then is not None:
                self._then()
            return
        self._write(piece)
        self._timer = asyncio.get_running_loop().call_later(self._gap, self._next)


def pieces(data: bytes, size: int) -> list[bytes]:
    """Cut `data` into pieces of `size` bytes, characters and all."""
    return [data[start : start + size] for start in range(0, len(data), size)]
