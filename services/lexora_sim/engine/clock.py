"""A timer wheel of one millisecond: many sequences share one timer of the loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from heapq import heappop, heappush


class Clock:
    """Call functions at instants of the loop's time, rounded up to a millisecond.

    There is no cancelling: a callee whose plans changed must notice by itself.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, list[Callable[[], None]]] = {}
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0

    def now(self) -> float:
        """Return the loop's time in seconds."""
        return self._loop.time()

    def at(self, instant: float, call: Callable[[], None]) -> None:
        """Call `call` at `instant` or as soon after it as the loop gets to it."""
        key = math.ceil(instant * 1000)
        slot = self._slots.get(key)
        if slot is not None:
            slot.append(call)
            return
        self._slots[key] = [call]
        heappush(self._order, key)
        if self._timer is None or key < self._next:
            self._arm(key)

    def soon(self, call: Callable[[], None]) -> None:
        """Call `call` in the next turn of the loop."""
        self._loop.call_soon(call)

    def _arm(self, key: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = key
        self._timer = self._loop.call_at(key / 1000, self._fire)

    def _fire(self) -> None:
        self._timer = None
        limit = math.floor(self._loop.time() * 1000 + 0.5)
        due: list[Callable[[], None]] = []
        while self._order and self._order[0] <= limit:
            due += self._slots.pop(heappop(self._order))
        for call in due:
            call()
        if self._order and self._timer is None:
            self._arm(self._order[0])
