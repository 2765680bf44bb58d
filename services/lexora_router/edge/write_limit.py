"""How long one write to a client may take: a client that reads nothing must not keep a slot."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class WriteLimit:
    """Cancels the task that made it when a write, `with limit: await ...`, takes longer than `seconds`; `stop` it at the end.

    One timer for all writes, which is moved when it fires and not at every write.
    """

    __slots__ = ("_began", "_loop", "_seconds", "_timer", "over", "task")

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.over = False
        self.task = task
        self._loop = task.get_loop()
        self._seconds = seconds
        self._began = 0.0  # 0: no write is under way
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._began = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._began = 0.0

    def stop(self) -> None:
        """No more writes."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if not self._began:
            return  # the next write begins anew
        left = self._began + self._seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self.over = True
            self.task.cancel()
