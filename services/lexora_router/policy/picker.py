"""Which endpoint of a pool gets the next attempt."""

from collections.abc import Callable, Sequence
from typing import Protocol


class Candidate(Protocol):
    """What the choice looks at: attempts under way, and what the last probe or attempt found (None: not tried yet)."""

    in_flight: int
    healthy: bool | None


def pick(candidates: Sequence[Candidate], randrange: Callable[[int], int], weights: Sequence[float] | None = None) -> int:
    """Index of the endpoint to try: power of two choices on attempts in flight, among the healthy ones.

    Two are drawn at random and the less loaded one is taken, which keeps the longest queue at O(log log n) instead of
    O(log n) (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001). When all are known
    to be down all are candidates: a guess that may work beats a sure refusal. `candidates` must not be empty.

    `weights` (above 0, one per candidate; all equal when left out) divide the attempts in flight: an endpoint of weight 0.1
    gets a second attempt when the other one has ten. An idle one is not passed over, so a recovered endpoint is tried at once.
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
    load_a: float = candidates[a].in_flight
    load_b: float = candidates[b].in_flight
    if weights is not None:
        load_a, load_b = load_a * weights[b], load_b * weights[a]
    return a if load_a <= load_b else b
