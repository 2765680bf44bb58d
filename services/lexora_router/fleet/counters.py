"""What one backend's attempts and waits came to: plain counters, read when metrics are scraped."""

from bisect import bisect_left
from collections.abc import Sequence

from lexora_router.call import Outcome

# Upper bounds in seconds: from no wait at all to the default of `queue.timeout`, and beyond.
WAIT_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0)


class Histogram:
    """Counts of values by upper bound, the last one without; `total` is the sum of all values."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Upper bound as text, and how many values are not above it; "+Inf" last."""
        seen, found = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self.counts, strict=True):
            seen += count
            found.append((bound, float(seen)))
        return found


class Tally:
    """Of one backend, kept over reloads: ended attempts by outcome, and seconds that admitted calls waited for a slot."""

    __slots__ = ("attempts", "waits")

    def __init__(self) -> None:
        self.attempts = dict.fromkeys(Outcome, 0)
        self.waits = Histogram(WAIT_BOUNDS)
