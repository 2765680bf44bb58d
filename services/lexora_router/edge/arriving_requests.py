"""Messages that are on their way: how many of them may be slow, and for how long each is waited for.

gRPC itself waits for a message as long as its client likes, and holds what has come of it, up to the largest message, where no
limit, no queue and no slot sees it. Its length is not known before it is whole, so what is slow counts as one that is that
large.
"""

import asyncio
from typing import Any

import structlog

# A usual message is there a moment after its head; what is slower counts.
SLOW_SECONDS = 0.1
# A message of 32 MiB comes in this time at 2 Mbit/s.
ARRIVAL_SECONDS = 120.0
# So many may be slow whatever the memory: with fewer, a few slow lines would refuse all others.
LEAST = 16
LOG_SECONDS = 10.0

_log = structlog.get_logger("lexora.server")


class ArrivingRequests:
    """The tasks of rpcs whose message is on its way. They are cancelled where that takes too long."""

    def __init__(self, most: int, *, seconds: float = ARRIVAL_SECONDS, slow: float = SLOW_SECONDS) -> None:
        self._most = most
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
        now, slow = loop.time(), 0
        for task, since in list(self._since.items()):
            if now - since >= self._slow:
                slow += 1
                if slow > self._most or now - since >= self._seconds:
                    self._end(task)
            else:
                break  # those behind it have come later
        if self._ended and now - self._logged_at >= LOG_SECONDS:
            _log.warning("requests_ended", reason="their messages came too slowly", times=self._ended, slow=slow)
            self._ended, self._logged_at = 0, now
        self._timer = loop.call_later(self._slow, self._look, loop) if self._since or self._ended else None

    def _end(self, task: asyncio.Task[Any]) -> None:
        del self._since[task]
        self._ended += 1
        task.cancel()  # it ends its call: gRPC lets go of what has come
