"""How long unary answers of one kind usually take, and from when on one is overdue.

A unary answer says nothing before its end, so silence alone proves nothing: some take a quarter of an hour. But calls that are
alike (the same path, model and order of magnitude of `max_tokens`) take times that are alike.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from math import inf

# An answer is overdue after so many times the longest of the latest ones.
FACTOR = 4.0
# A kind of call with fewer answers than these is never overdue.
MIN_ANSWERS = 10
# The longest is that of so many answers at least, and of twice as many at most.
GENERATION = 100
MAX_KINDS = 256


@dataclass(slots=True)
class UsualTime:
    """The times of the latest answers of one kind."""

    answers: int = 0
    longest: float = 0.0  # of this generation
    before: float = 0.0  # of the one before

    def add(self, seconds: float) -> None:
        """Count an answer that took so long."""
        self.answers += 1
        self.longest = max(self.longest, seconds)
        if self.answers % GENERATION == 0:
            self.before, self.longest = self.longest, 0.0

    @property
    def bound(self) -> float:
        """Seconds after which an answer of this kind is overdue; inf while too little is known."""
        return inf if self.answers < MIN_ANSWERS else FACTOR * max(self.longest, self.before)


class UsualTimes:
    """The times of the latest answers, by kind; kinds that were not asked for longest are forgotten."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[Hashable, UsualTime] = OrderedDict()

    def of(self, kind: Hashable) -> UsualTime:
        """The times of this kind."""
        known = self._kinds.get(kind)
        if known is not None:
            self._kinds.move_to_end(kind)
            return known
        known = self._kinds[kind] = UsualTime()
        if len(self._kinds) > MAX_KINDS:
            self._kinds.popitem(last=False)
        return known
