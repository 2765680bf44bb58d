"""How many retries the live traffic can bear: without a bound, retries finish off an engine that is only slow."""

from lexora_router.policy.sliding_pair import SlidingPair

SLACK = 1e-9  # 0.29 * 100 is a little less than 29


class RetryBudget:
    """Retries may be a `share` of the calls of the last `window` seconds, or `floor` per second where that is more.

    The floor lets a quiet service retry at all. It is not added to the share, so a busy one never sees more than
    1 + share times its load. Raises ValueError when a value is negative or the window not positive.
    """

    __slots__ = ("_counts", "_floor", "_share")

    def __init__(self, *, share: float = 0.2, floor: float = 3.0, window: float = 5.0) -> None:
        if share < 0 or floor < 0:
            raise ValueError(f"share and floor must not be negative, not {share} and {floor}")
        self._counts = SlidingPair(window)
        self._share = share
        self._floor = floor * window

    def deposit(self, now: float) -> None:
        """Count the first attempt of a call."""
        self._counts.add(now, 1, 0)

    def withdraw(self, now: float, *, overdraw: bool = False) -> bool:
        """Count one retry, if there is room for it, or it may `overdraw`; without share and floor there is none in any case."""
        if self.remaining(now) < 1 and not (overdraw and (self._share or self._floor)):
            return False
        self._counts.add(now, 0, 1)
        return True

    def remaining(self, now: float) -> int:
        """Retries that could be made now, never negative."""
        calls, retries = self._counts.totals(now)
        return max(0, int(max(self._floor, self._share * calls) + SLACK) - retries)
