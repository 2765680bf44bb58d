"""A token bucket: what one user may spend per time, with a burst saved up."""

from copy import copy
from math import floor, inf, isfinite

from lexora_contract.answer import BucketState

SLACK = 1e-6
"""Tokens forgiven at a comparison, so that a clock in steps of 0.1 s isn't one late; the bucket remembers them as debt."""


class TokenBucket:
    """A balance of tokens that grows by `rate` per second up to `burst`, full at the start. `now` is monotonic, in seconds.

    `level` is the balance to start with, where that is not full.

    Over any interval of t seconds at most burst + rate * t tokens are taken. Raises ValueError for a rate or a burst that is
    not a positive, finite number.
    """

    __slots__ = ("_at", "_level", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float, level: float | None = None) -> None:
        self._level = float(burst) if level is None else level
        self._at = now
        self._set(rate, burst)

    def take(self, n: float, now: float) -> bool:
        """Take n tokens if they are there. More than `burst` are never there."""
        if self.balance(now) + SLACK < n:
            return False
        self._level -= n
        return True

    def settle(self, reserved: float, actual: float, now: float) -> None:
        """Correct a reservation by what was really used: give back the rest, or charge the excess, as a debt if need be.

        What comes back never fills the bucket above `burst`. Where `reserved` was an upper bound, the balance is never
        lower than minus one reservation; where it was too low, the truth is charged, so that the rate holds on average.
        """
        self._level = min(self.burst, self.balance(now) + reserved - actual)

    def wait(self, n: float, now: float) -> float:
        """Seconds until `take(n)` succeeds if no other call takes, 0 when it does now; infinite when n is more than `burst`."""
        missing = n - self.balance(now)
        if missing <= SLACK:
            return 0.0
        return missing / self.rate if n <= self.burst else inf

    def spend(self, n: float) -> float:
        """Take n tokens that were found there now; gives the balance that is left."""
        self._level -= n
        return self._level

    def balance(self, now: float) -> float:
        """Tokens there now; negative while in debt."""
        elapsed = now - self._at
        if elapsed > 0:
            level = self._level + elapsed * self.rate
            self._level = self.burst if level > self.burst else level
            self._at = now
        return self._level

    def full(self, now: float) -> bool:
        """Whether forgetting this bucket would change nothing."""
        return self._level + max(now - self._at, 0.0) * self.rate >= self.burst

    def state(self, left: float, now: float) -> BucketState:
        """Where the bucket stands that has this balance now."""
        return BucketState(int(self.burst), floor(left) if left > 0 else 0, (self.burst - left) / self.rate)

    def seen(self, now: float) -> "TokenBucket":
        """A bucket of its own that stands where this one does."""
        return copy(self)

    def adjust(self, rate: float, burst: float, now: float) -> None:
        """Go on with another rate and burst. The balance stays: a larger burst is not a gift, a smaller one caps it."""
        self.balance(now)
        self._set(rate, burst)
        self._level = min(self._level, self.burst)

    def _set(self, rate: float, burst: float) -> None:
        if not (isfinite(rate) and isfinite(burst) and rate > 0 and burst > 0):
            raise ValueError(f"rate and burst must be positive and finite, not {rate} and {burst}")
        self.rate = rate
        self.burst = float(burst)
