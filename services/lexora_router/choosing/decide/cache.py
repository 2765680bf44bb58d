"""Answers that are remembered for a while."""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Memory(Generic[T]):
    """At most `size` answers, each for `ttl` seconds; the one that was not used for longest goes first. 0 of either: none."""

    def __init__(self, size: int, ttl: float) -> None:
        self._size = size
        self._ttl = ttl
        self._kept: OrderedDict[bytes, tuple[float, T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes, now: float) -> T | None:
        """The answer, if it is known and not too old."""
        found = self._kept.get(key)
        if found is None:
            return None
        if now >= found[0]:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return found[1]

    def put(self, key: bytes, answer: T, now: float) -> None:
        """Remember an answer."""
        if self._size == 0 or self._ttl == 0:
            return
        self._kept[key] = (now + self._ttl, answer)
        self._kept.move_to_end(key)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
