"""Which endpoint of a pool gets the next attempt."""

from collections.abc import Callable, Sequence
from typing import Protocol


class Candidate(Protocol):
    """What the choice looks at: attempts under way, and what the last probe or attempt found (None: not tried yet)."""

    in_flight: int
    healthy: bool | None


def pick(candidates: Sequence[Candidate], randrange: Callable[[int], int]) -> int:
    """Index of the endpoint to try: power of two choices on attempts in flight, among the healthy ones.

    Two are drawn at random and the less loaded one is taken, which keeps the longest queue at O(log log n) instead of
    O(log n) (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001). When all are known
    to be down all are candidates: a guess that may work beats a sure refusal. `candidates` must not be empty.
    """
    count = len(candidates)
    if count == 1:
        return 0
    indexes = [i for i in range(count) if candidates[i].healthy is not False] or range(count)
    if len(indexes) == 1:
        return indexes[0]
    first = randrange(len(indexes))
    second = randrange(len(indexes) - 1)
    if second >= first:
        second += 1
    a, b = indexes[first], indexes[second]
    return a if candidates[a].in_flight <= candidates[b].in_flight else b
