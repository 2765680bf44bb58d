"""Which prompt prefixes are still in the KV cache, in blocks of 16 token ids."""

from __future__ import annotations

from array import array
from collections import OrderedDict

BLOCK = 16


class PrefixCache:
    """Least recently used blocks, each named by the hash of everything up to its end."""

    def __init__(self, capacity_tokens: int) -> None:
        self._capacity = max(1, capacity_tokens // BLOCK)
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def touch(self, ids: list[int], salt: str = "") -> int:
        """Remember the full blocks of `ids`; return how many leading tokens were known already, under the same salt.

        The last token never counts, as an engine must compute at least one.
        """
        known = 0
        broken = False
        for number, name in enumerate(_names(ids, salt)):
            if name in self._blocks:
                self._blocks.move_to_end(name)
                if not broken and (number + 1) * BLOCK < len(ids):
                    known += BLOCK
            else:
                broken = True
                self._blocks[name] = None
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)
        return known

    def clear(self) -> None:
        """Forget everything."""
        self._blocks.clear()


def _names(ids: list[int], salt: str) -> list[int]:
    raw = array("I", ids).tobytes()
    size = BLOCK * 4
    names: list[int] = []
    previous = hash(salt) if salt else 0
    for start in range(0, len(raw) - size + 1, size):
        previous = hash((previous, raw[start : start + size]))
        names.append(previous)
    return names
