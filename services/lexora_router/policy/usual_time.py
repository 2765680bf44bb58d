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
class _Kind:
    answers: int = 0
    longest: float = 0.0  # of this generation
    before: float = 0.0  # of the one before


class UsualTimes:
    """The times of the latest answers, by kind; kinds that were not seen for longest are forgotten."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()

    def add(self, kind: Hashable, seconds: float) -> None:
        """Count an answer that took so long."""
        known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = _Kind()
            if len(self._kinds) > MAX_KINDS:
                self._kinds.popitem(last=False)
        self._kinds.move_to_end(kind)
        known.answers += 1
        known.longest = max(known.longest, seconds)
        if known.answers % GENERATION == 0:
            known.before, known.longest = known.longest, 0.0

    def bound(self, kind: Hashable) -> float:
        """Seconds after which an answer of this kind is overdue; inf while too little is known."""
        known = self._kinds.get(kind)
        if known is None or known.answers < MIN_ANSWERS:
            return inf
        return FACTOR * max(known.longest, known.before)
