"""What an engine's own log says of its slots: how many were in use at once, and how long each stood free."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Interval = tuple[float, float]
"""From when to when an engine had a call, in seconds of the machine's monotonic clock."""


def intervals(log: Iterable[dict[str, Any]]) -> list[Interval]:
    """From receipt to end of each logged call."""
    return [(call["received"], call["finished"]) for call in log]


def most_at_once(spans: Iterable[Interval]) -> int:
    """The most that overlap."""
    # An end and a beginning at one instant don't overlap.
    changes = sorted(change for begin, end in spans for change in ((begin, 1), (end, -1)))
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


@dataclass(slots=True)
class Handover:
    """How long slots stood free between one call and the next, sorted, in seconds, and their share of all slot time."""

    gaps: list[float]
    idle_share: float

    @property
    def median(self) -> float:
        """Of the gaps."""
        return self.gaps[len(self.gaps) // 2]

    @property
    def longest(self) -> float:
        """Of the gaps."""
        return self.gaps[-1]

    def __str__(self) -> str:
        ms = [f"{1000 * gap:.1f}" for gap in (self.median, self.gaps[len(self.gaps) * 99 // 100], self.longest)]
        return f"hand-over p50/p99/max {'/'.join(ms)} ms, idle {100 * self.idle_share:.1f} % of slot time"


def handover(spans: Sequence[Interval], slots: int) -> Handover:
    """The gaps from the first call's beginning to the last one's, in which calls always waited."""
    first, last = min(begin for begin, _ in spans), max(begin for begin, _ in spans)
    free: deque[float] = deque([first] * slots)
    gaps: list[float] = []
    for instant, is_begin in sorted([(end, False) for _, end in spans] + [(begin, True) for begin, _ in spans]):
        if is_begin:
            gaps.append(instant - free.popleft())
        else:
            free.append(instant)
    return Handover(sorted(gaps), sum(gaps) / (slots * (last - first)))


def jain(shares: Sequence[float]) -> float:
    """Jain's index of fairness: 1 when all have the same, 1/n when one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))
