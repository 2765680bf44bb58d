"""Two counters over the last seconds, such as requests and retries, or successes and failures."""

from math import isfinite

SLOTS = 10


class SlidingPair:
    """Counts two kinds of things over a window of `window` seconds, kept as ten slots that expire one by one.

    What the totals cover is between nine tenths of the window and the whole of it. Memory and time are constant. A `now`
    that goes back counts as no progress. Raises ValueError when the window is not positive.
    """

    __slots__ = ("_first", "_first_total", "_index", "_second", "_second_total", "_slot", "_until", "_width")

    def __init__(self, window: float) -> None:
        if not (isfinite(window) and window > 0):
            raise ValueError(f"the window must be positive, not {window}")
        self._width = window / SLOTS
        self._index = self._slot = 0  # the slot that is filled now is `index` modulo SLOTS
        self._until = self._width  # when it ends
        self.clear()

    def add(self, now: float, first: int, second: int) -> None:
        """Count so many of the first kind and of the second."""
        if now >= self._until:
            self._advance(int(now // self._width))
        if first:
            self._first[self._slot] += first
            self._first_total += first
        if second:
            self._second[self._slot] += second
            self._second_total += second

    def take_back(self, at: float, first: int, second: int) -> None:
        """Count so many less of what was added at that instant; nothing when it has expired."""
        index = int(at // self._width)
        if not self._index - SLOTS < index <= self._index:
            return
        slot = index % SLOTS
        first, second = min(first, self._first[slot]), min(second, self._second[slot])
        self._first[slot] -= first
        self._second[slot] -= second
        self._first_total -= first
        self._second_total -= second

    def totals(self, now: float) -> tuple[int, int]:
        """How many of each were counted within the window."""
        if now >= self._until:
            self._advance(int(now // self._width))
        return self._first_total, self._second_total

    def clear(self) -> None:
        """Forget all."""
        self._first = [0] * SLOTS
        self._second = [0] * SLOTS
        self._first_total = self._second_total = 0

    def _advance(self, index: int) -> None:
        if index <= self._index:
            return
        if index - self._index >= SLOTS:
            self.clear()
        else:
            for expired in range(self._index + 1, index + 1):
                slot = expired % SLOTS
                self._first_total -= self._first[slot]
                self._second_total -= self._second[slot]
                self._first[slot] = self._second[slot] = 0
        self._index, self._slot, self._until = index, index % SLOTS, (index + 1) * self._width
