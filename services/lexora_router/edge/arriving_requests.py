"""Messages that are on their way: how much of them may be here, and for how long each is waited for.

gRPC itself waits for a message as long as its client likes, and holds what has come of it, up to the largest message, where no
limit, no queue and no slot sees it. How much that is shows in the memory of the process alone.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from lexora_router.machine import resident_bytes

# A usual message is there a moment after its head; what is slower counts.
SLOW_SECONDS = 0.1
# A message of 32 MiB comes in this time at 2 Mbit/s.
ARRIVAL_SECONDS = 120.0
# By default they take at most this share of the memory.
ARRIVING_SHARE = 8
# So many may be slow however much they take.
LEAST = 16
LOG_SECONDS = 10.0

_log = structlog.get_logger("lexora.server")


class ArrivingRequests:
    """The tasks of rpcs whose message is on its way. They are cancelled where that takes too long."""

    def __init__(
        self,
        most_bytes: int,
        resident: Callable[[], int] = resident_bytes,
        *,
        least: int = LEAST,
        seconds: float = ARRIVAL_SECONDS,
        slow: float = SLOW_SECONDS,
    ) -> None:
        self._most_bytes = most_bytes
        self._resident = resident
        self._before = 0  # bytes of the process when the first of those that are slow was found; 0: none is
        self._least = least
        self._seconds = seconds
        self._slow = slow
        self._since: dict[asyncio.Task[Any], float] = {}  # the one that waits longest first
        self._timer: asyncio.TimerHandle | None = None
        self._ended = 0
        self._logged_at = float("-inf")

    @property
    def count(self) -> int:
        """Rpcs whose message is on its way."""
        return len(self._since)

    def begin(self) -> asyncio.Task[Any]:
        """A message is expected from now on; the task that waits for it."""
        task = asyncio.current_task()
        assert task is not None
        loop = task.get_loop()
        self._since[task] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._slow, self._look, loop)
        return task

    def arrived(self, task: asyncio.Task[Any]) -> None:
        """It is here, or is not waited for any more."""
        self._since.pop(task, None)

    def has_ended(self, task: asyncio.Task[Any]) -> bool:
        """Whether it was cancelled here; to be asked before `arrived`."""
        return task not in self._since

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        slow = [task for task, since in self._since.items() if now - since >= self._slow]
        for task in slow:
            if now - self._since[task] < self._seconds:
                break
            self._end(task)
        if self._take_too_much(len(slow)):
            for task in slow[self._least :]:
                if task in self._since:
                    self._end(task)
        if self._ended and now - self._logged_at >= LOG_SECONDS:
            _log.warning("requests_ended", reason="their messages came too slowly", times=self._ended, slow=len(slow))
            self._ended, self._logged_at = 0, now
        self._timer = loop.call_later(self._slow, self._look, loop) if self._since or self._ended else None

    def _take_too_much(self, slow: int) -> bool:
        if not slow:
            self._before = 0
            return False
        resident = self._resident()
        self._before = self._before or resident
        return slow > self._least and resident - self._before > self._most_bytes

    def _end(self, task: asyncio.Task[Any]) -> None:
        del self._since[task]
        self._ended += 1
        task.cancel()  # it ends its call: gRPC lets go of what has come
