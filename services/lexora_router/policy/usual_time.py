"""How long unary answers of one kind usually take, and from when on one is overdue.

A unary answer says nothing before its end, so silence alone proves nothing: some take a quarter of an hour. But calls that are
alike (the same path, model and order of magnitude of `max_tokens`) take times that are alike.
"""

from collections import OrderedDict
from collections.abc import Hashable
from math import inf

# An answer is overdue after so many times the longest of the latest ones.
FACTOR = 4.0
# A kind of call with fewer answers than these is never overdue.
MIN_ANSWERS = 10
# The longest is that of so many answers at least, and of twice as many at most.
GENERATION = 100
MAX_KINDS = 256


class UsualTime:
    """The times of the latest answers of one kind; one that takes longer than `bound`, in seconds, is overdue.

    That is inf while too little is known.
    """

    __slots__ = ("_answers", "_before", "_longest", "bound")

    def __init__(self) -> None:
        self._answers = 0
        self._longest = 0.0  # of this generation
        self._before = 0.0  # of the one before
        self.bound = inf

    def add(self, seconds: float) -> None:
        """Count an answer that took so long."""
        self._answers += 1
        if seconds > self._longest:
            self._longest = seconds
        elif self._answers % GENERATION and self._answers != MIN_ANSWERS:
            return
        if self._answers % GENERATION == 0:
            self._before, self._longest = self._longest, 0.0
        if self._answers >= MIN_ANSWERS:
            self.bound = FACTOR * max(self._longest, self._before)


class UsualTimes:
    """The times of the latest answers, by kind; kinds that were not asked for longest are forgotten."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[Hashable, UsualTime] = OrderedDict()
        self._kind: Hashable = None  # the one that was asked for last
        self._last = UsualTime()

    def of(self, kind: Hashable) -> UsualTime:
        """The times of this kind."""
        if kind != self._kind:
            self._kind, self._last = kind, self._find(kind)
        return self._last

    def _find(self, kind: Hashable) -> UsualTime:
        known = self._kinds.get(kind)
        if known is not None:
            self._kinds.move_to_end(kind)
            return known
        known = self._kinds[kind] = UsualTime()
        if len(self._kinds) > MAX_KINDS:
            self._kinds.popitem(last=False)
        return known
