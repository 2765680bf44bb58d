"""A time limit for an answer from outside that does not count the time for which this process did not look."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

SLACK_SECONDS = 0.002


class LagTolerantTimeout:
    """`async with LagTolerantTimeout(0.05, clock):` as asyncio.timeout.

    An event loop that was busy over the end finds the timer before the answer that has come in meanwhile. So the end comes
    later by as much as the timer was late, at most by the whole limit.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._limit = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._limit.__aenter__()
        self._until = self._clock() + self._seconds
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._end)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._limit.__aexit__(kind, error, traceback)

    def _end(self) -> None:
        late = max(0.0, self._clock() - self._until)
        self._limit.reschedule(asyncio.get_running_loop().time() + SLACK_SECONDS + min(late, self._seconds))
