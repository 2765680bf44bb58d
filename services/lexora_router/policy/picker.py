"""Which endpoint of a pool gets the next attempt."""

from collections.abc import Callable, Sequence
from typing import Protocol


class Candidate(Protocol):
    """What the choice looks at: attempts under way."""

    @property
    def in_flight(self) -> int: ...  # noqa: D102


def score(candidate: Candidate, weight: float) -> float:
    """What `pick` compares: the attempts in flight, divided by the weight. The lower one of two gets the attempt."""
    return candidate.in_flight / weight


def pick(candidates: Sequence[Candidate], randrange: Callable[[int], int], weights: Sequence[float] | None = None) -> int:
    """Index of the endpoint to try: power of two choices on attempts in flight.

    Two are drawn at random and the less loaded one is taken, which keeps the longest queue at O(log log n) instead of
    O(log n) (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001). `candidates` must not be empty.

    `weights` (above 0, one per candidate; all equal when left out) divide the attempts in flight: an endpoint of weight 0.1
    gets a second attempt when the other one has ten. An idle one is not passed over, so a recovered endpoint is tried at once.
    """
    count = len(candidates)
    if count == 1:
        return 0
    a = randrange(count)
    b = randrange(count - 1)
    if b >= a:
        b += 1
    load_a: float = candidates[a].in_flight
    load_b: float = candidates[b].in_flight
    if weights is not None:
        load_a, load_b = load_a * weights[b], load_b * weights[a]
    return a if load_a <= load_b else b
