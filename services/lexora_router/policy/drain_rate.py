"""How fast a pool gives slots back, and so how long a place in its queue will wait.

By Little's law a pool whose slots are all taken finishes `slots / mean holding time` calls per second. Holding times are
measured call by call, which works from the first finished call on, does not mistake a quiet hour for a slow pool, and needs no
fresh measurement when the number of slots changes; counting finishes per second would do none of the three. While calls wait,
all slots are taken, so nothing finishing for s seconds means that every call under way has run for s: the mean counts as at
least that, and an engine that hangs shows in the estimate at once.
"""

from math import ceil
from typing import Final

_MEMORY: Final = 64
"""Calls over which the mean is taken, exponentially weighted once there are more."""


class DrainRate:
    """Holding times of one pool, and the estimates made of them. Times are in seconds."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._quiet_since: float | None = None  # since when calls have waited and none has finished

    def finished(self, held: float, now: float) -> None:
        """A call gave its slot back after `held` seconds. Not for calls that never used the engine."""
        self._count = min(self._count + 1, _MEMORY)
        self._mean += (max(0.0, held) - self._mean) / self._count
        if self._quiet_since is not None:
            self._quiet_since = now

    def waiting(self, now: float) -> None:
        """At least one call waits, because all slots are taken. Repeating it changes nothing."""
        if self._quiet_since is None:
            self._quiet_since = now

    def drained(self) -> None:
        """No call waits any more."""
        self._quiet_since = None

    def mean_held(self, now: float) -> float | None:
        """How long a call holds a slot, in seconds; None while nothing is known."""
        quiet = 0.0 if self._quiet_since is None else now - self._quiet_since
        if not self._count:
            return quiet if quiet > 0 else None
        return max(self._mean, quiet)

    def wait(self, ahead: int, slots: int, now: float) -> float | None:
        """Seconds until a call with `ahead` others before it gets one of `slots`; None while nothing is known.

        Infinite without slots. None is no reason to refuse a call.
        """
        if slots < 1:
            return float("inf")
        held = self.mean_held(now)
        return None if held is None else (ahead + 1) * held / slots

    def retry_after(self, ahead: int, slots: int, now: float, *, longest: int = 300) -> int:
        """A refused client's Retry-After: the same wait in whole seconds, 1 to `longest`; 1 while nothing is known."""
        wait = self.wait(ahead, slots, now)
        return 1 if wait is None else max(1, ceil(min(wait, longest)))
