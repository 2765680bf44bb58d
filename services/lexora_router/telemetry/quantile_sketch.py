"""Quantiles of durations in fixed memory: counts in buckets whose bounds grow by a constant factor, as in DDSketch.

Paper: https://arxiv.org/abs/1908.10693. A bucket's value is the one that is off by the same share at both its ends.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, log
from operator import add

from msgspec import Struct, field

# Between these, in seconds, a quantile is off by at most this share of the true value; beyond them it is the bound itself.
ACCURACY = 0.05
LOWEST, HIGHEST = 10e-6, 3 * 3600.0

_GROWTH = (1 + ACCURACY) / (1 - ACCURACY)
_STEPS = ceil(log(HIGHEST / LOWEST) / log(_GROWTH))
_BOUNDS = tuple(LOWEST * _GROWTH**step for step in range(_STEPS + 1))
_TOLD = (LOWEST, *(bound * (1 + ACCURACY) for bound in _BOUNDS[:-1]), HIGHEST)
_QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Distribution:
    """What values came to: how many, their mean, and quantiles in seconds; all 0 where there was none."""

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0


def _none() -> list[int]:
    return [0] * len(_TOLD)


class QuantileSketch(Struct, array_like=True, gc=False):
    """Counts durations in seconds; 209 buckets, however many values there are."""

    counts: list[int] = field(default_factory=_none)
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one value."""
        self.counts[bisect_right(_BOUNDS, seconds)] += 1
        self.total += seconds

    def merge(self, others: Iterable["QuantileSketch"]) -> None:
        """Count all that others have counted."""
        for other in others:
            if any(other.counts):
                self.counts = list(map(add, self.counts, other.counts))
                self.total += other.total

    def distribution(self) -> Distribution:
        """Count, mean and quantiles."""
        upto = list(accumulate(self.counts))
        count = upto[-1]
        if not count:
            return Distribution()
        return Distribution(count, self.total / count, *(_TOLD[bisect_left(upto, ceil(count * q))] for q in _QUANTILES))
