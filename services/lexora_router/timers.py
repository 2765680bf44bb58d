"""Timers of calls, in one wheel: thousands that mostly end before they are due, at the cost of a set's entry each.

A timer fires late by at most a thirtieth of its delay or 8 ms, whichever is more, and never early: timers that are due at about
the same time share a slot, and only the next slot has a timer of the event loop. (Varghese and Lauck, "Hashed and Hierarchical
Timing Wheels", 1987; here the slots of one wheel have widths that grow with the delay.)
"""

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from math import ceil, frexp, ldexp
from types import TracebackType
from typing import ClassVar, Self

# Slots are 2 ** -7 s wide at least, and at most a 32nd of the delay.
_FINEST = -7
_SHARE = 6


def _nothing() -> None:
    pass


class Timer:
    """One callback to come; `cancel` it when it is not needed.

    Cancelled or fired, it holds its callback no more: what calls and bodies hang on would wait for the garbage collector.
    """

    __slots__ = ("_callback", "_slot")

    def __init__(self, callback: Callable[[], None], slot: "set[Timer]") -> None:
        self._callback = callback
        self._slot = slot
        slot.add(self)

    def cancel(self) -> None:
        """Let it not fire; of a timer that has fired nothing is left to cancel."""
        self._slot.discard(self)
        self._callback = _nothing

    def fire(self) -> None:
        """Call back."""
        callback, self._callback = self._callback, _nothing
        callback()


class Wheel:
    """The timers of one event loop."""

    last: "ClassVar[Wheel | None]" = None  # of the loop that runs, mostly the only one

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._slots: dict[float, set[Timer]] = {}
        self._order: list[float] = []  # a heap of the slots' instants
        self._next: asyncio.TimerHandle | None = None
        self._next_at = 0.0

    def at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back at an instant of the loop's clock, in seconds; at once when that has passed."""
        delay = when - self.loop.time()
        exponent = max(frexp(delay)[1] - _SHARE, _FINEST) if delay > 0 else _FINEST
        due = ldexp(ceil(ldexp(when, -exponent)), exponent)
        slot = self._slots.get(due)
        if slot is None:
            slot = self._slots[due] = set()
            heappush(self._order, due)
            if self._next is None or due < self._next_at:
                self._arm(due)
        return Timer(callback, slot)

    def _arm(self, due: float) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next_at = due
        self._next = self.loop.call_at(due, self._turn)

    def _turn(self) -> None:
        """Fire what is due, in order."""
        self._next = None
        now = max(self.loop.time(), self._next_at)  # a loop may be early by the resolution of its clock
        while self._order and self._order[0] <= now:
            slot = self._slots.pop(heappop(self._order))
            while slot:
                try:
                    slot.pop().fire()
                except Exception as bug:  # of one timer, which is no reason to lose the others
                    self.loop.call_exception_handler({"message": "a timer's callback failed", "exception": bug})
        while self._order and not self._slots[self._order[0]]:
            del self._slots[heappop(self._order)]
        if self._order and (self._next is None or self._order[0] < self._next_at):
            self._arm(self._order[0])


def call_at(when: float, callback: Callable[[], None]) -> Timer:
    """Call back at an instant of the running loop's clock."""
    loop, wheel = asyncio.get_running_loop(), Wheel.last
    if wheel is None or wheel.loop is not loop:
        Wheel.last = wheel = Wheel(loop)
    return wheel.at(when, callback)


def call_later(seconds: float, callback: Callable[[], None]) -> Timer:
    """Call back after so many seconds."""
    return call_at(asyncio.get_running_loop().time() + seconds, callback)


class Expiry:
    """As `asyncio.timeout_at`, on the wheel: `with Expiry(when) as limit` raises TimeoutError when the instant has come first.

    `move` says another instant, None for never; `expire` ends it now.
    """

    __slots__ = ("_cancelling", "_task", "_timer", "expired")

    def __init__(self, when: float | None = None) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self.expired = False
        self._timer = None if when is None else call_at(when, self.expire)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Cancel the task that is inside."""
        if not self.expired:
            self.expired = True
            self._task.cancel()
