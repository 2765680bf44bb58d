"""Vectors of texts: alike in letters, alike in direction. What words mean is not known here."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterator
from zlib import crc32

from lexora_sim.text.language import mix

_SIZES = (2, 3, 4)  # characters that are looked at together


def vector(text: str, size: int) -> list[float]:
    """Return a vector of length one and `size` dimensions for the pieces of two to four characters of a text.

    Each piece adds to one dimension, or takes from it, as its hash says; a piece that is there often counts for less each
    time. Case and width of characters make no difference.
    """
    sums = [0.0] * size
    for piece, count in Counter(_pieces(unicodedata.normalize("NFKC", text).casefold())).items():
        number = mix(crc32(piece.encode("utf-8", "replace")))
        sums[(number >> 1) % size] += math.sqrt(count) * (1 if number & 1 else -1)
    length = math.sqrt(sum(value * value for value in sums))
    if length == 0:  # everything cancelled out, as in the empty text
        return [1.0, *[0.0] * (size - 1)]
    return [value / length for value in sums]


def _pieces(text: str) -> Iterator[str]:
    padded = f" {' '.join(text.split())} "
    for size in _SIZES:
        for start in range(len(padded) - size + 1):
            yield padded[start : start + size]
