"""The classifier by likeness: which labelled example is nearest to a task."""

import math
from collections.abc import Iterable, Mapping, Sequence
from operator import mul

from lexora_router.choosing.decide.label import Label

Vector = tuple[float, ...]
# How much nearer an example must be to count for much more: similarities of texts lie close together.
TEMPERATURE = 0.05


def unit(numbers: Sequence[float]) -> Vector:
    """The vector at length 1; raises ValueError for one that has no direction."""
    length = math.sqrt(sum(map(mul, numbers, numbers)))
    if not 0 < length < math.inf:
        raise ValueError("a vector without a direction")
    return tuple(number / length for number in numbers)


def nearer(best: dict[str, float], examples: Iterable[tuple[str, Vector]], task: Vector) -> None:
    """Keep in `best`, by capability, how near (cosine, -1 to 1) the nearest of its examples is. All vectors have length 1."""
    for capability, vector in examples:
        near = sum(map(mul, task, vector))
        if near > best.get(capability, -2.0):
            best[capability] = near


def verdict(best: Mapping[str, float], min_similarity: float) -> Label | None:
    """The capability of the nearest example; None when none is as near as `min_similarity`.

    Confidence is the softmax of the capabilities' nearest similarities at TEMPERATURE: 1 when one stands alone, 1/n when n
    are equally near.
    """
    if not best:
        return None
    capability = max(best, key=best.__getitem__)
    near = best[capability]
    if near < min_similarity:
        return None
    confidence = 1 / sum(math.exp((other - near) / TEMPERATURE) for other in best.values())
    return Label(capability, confidence, f"A similar example exists (similarity {near:.2f}).", "embedding")
