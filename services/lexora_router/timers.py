"""Timers of calls, in one wheel: thousands that mostly end before they are due, at the cost of a set's entry each.

A timer fires late by at most a thirtieth of its delay or 8 ms, whichever is more, and never early: timers that are due at about
the same time share a slot, and only the next slot has a timer of the event loop. (Varghese and Lauck, "Hashed and Hierarchical
Timing Wheels", 1987; here the slots of one wheel have widths that grow with the delay.)
"""

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from math import ceil, frexp, inf, ldexp
from types import TracebackType
from typing import ClassVar, Self

# Slots are 2 ** -7 s wide at least, and at most a 32nd of the delay.
_FINEST = -7
_SHARE = 6


class Timer:
    """Something to do at an instant; `cancel` it when it is not needed."""

    __slots__ = ("_slot",)
    _slot: "set[Timer]"  # the wheel sets it

    def cancel(self) -> None:
        """Let it not fire; of a timer that has fired nothing is left to cancel."""
        self._slot.discard(self)

    def fire(self) -> None:
        """Do it."""
        raise NotImplementedError

    def failed(self, bug: Exception, loop: asyncio.AbstractEventLoop) -> None:
        """What was done has raised."""
        loop.call_exception_handler({"message": "a timer's callback failed", "exception": bug})


_NOWHERE: set[Timer] = set()  # for timers that may not be set


class Callback(Timer):
    """Calls back, once.

    Cancelled or fired, it holds its callback no more: what calls and bodies hang on would wait for the garbage collector.
    """

    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Let it not call back."""
        self._slot.discard(self)
        self._callback = None

    def fire(self) -> None:
        """Call back."""
        callback, self._callback = self._callback, None
        if callback is not None:
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
        # The slot that was used last, which mostly suits again: the instants that it is for, and the least delay.
        self._recent: set[Timer] = set()
        self._after = self._until = self._least = 0.0

    def put(self, timer: Timer, when: float) -> None:
        """Let it fire at an instant of the loop's clock, in seconds; at once when that has passed."""
        delay = when - self.loop.time()
        if not (self._after < when <= self._until and delay >= self._least):
            self._find(when, delay)
        timer._slot = self._recent
        self._recent.add(timer)

    def _find(self, when: float, delay: float) -> None:
        """Make the slot of an instant the recent one."""
        exponent = max(frexp(delay)[1] - _SHARE, _FINEST) if delay > 0 else _FINEST
        due = ldexp(ceil(ldexp(when, -exponent)), exponent)
        slot = self._slots.get(due)
        if slot is None:
            slot = self._slots[due] = set()
            heappush(self._order, due)
            if self._next is None or due < self._next_at:
                self._arm(due)
        self._recent, self._until, self._after = slot, due, due - ldexp(1.0, exponent)
        self._least = -inf if exponent == _FINEST else ldexp(1.0, exponent + _SHARE - 1)

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
            self._until = -inf  # it may be the recent one
            while slot:
                timer = slot.pop()
                try:
                    timer.fire()
                except Exception as bug:  # of one timer, which is no reason to lose the others
                    timer.failed(bug, self.loop)
        while self._order and not self._slots[self._order[0]]:
            del self._slots[heappop(self._order)]
            self._until = -inf
        if self._order and (self._next is None or self._order[0] < self._next_at):
            self._arm(self._order[0])


def fire_at(when: float, timer: Timer) -> None:
    """Let a timer fire at an instant of the running loop's clock."""
    loop, wheel = asyncio.get_running_loop(), Wheel.last
    if wheel is None or wheel.loop is not loop:
        Wheel.last = wheel = Wheel(loop)
    wheel.put(timer, when)


def call_at(when: float, callback: Callable[[], None]) -> Timer:
    """Call back at an instant of the running loop's clock."""
    timer = Callback(callback)
    fire_at(when, timer)
    return timer


def call_later(seconds: float, callback: Callable[[], None]) -> Timer:
    """Call back after so many seconds."""
    return call_at(asyncio.get_running_loop().time() + seconds, callback)


class Expiry(Timer):
    """As `asyncio.timeout_at`, on the wheel: `with Expiry(when) as limit` raises TimeoutError when the instant has come first.

    `expire` ends it now. What a class that overrides `fire` raises there, the block raises: without a timer it may never end.
    """

    __slots__ = ("_bug", "_cancelling", "_task", "expired")
    _bug: Exception  # where there was one

    def __init__(self, when: float | None = None) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self.expired = False
        self._slot = _NOWHERE
        if when is not None:
            fire_at(when, self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._slot.discard(self)
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            bug = getattr(self, "_bug", None)
            if bug is None:
                raise TimeoutError from error
            del self._bug  # which has this frame
            raise bug

    def failed(self, bug: Exception, loop: asyncio.AbstractEventLoop) -> None:
        """End the block with it."""
        self._bug = bug
        self.expire()

    def fire(self) -> None:
        """The instant has come."""
        self.expire()

    def expire(self) -> None:
        """Cancel the task that is inside."""
        if not self.expired:
            self.expired = True
            self._task.cancel()
