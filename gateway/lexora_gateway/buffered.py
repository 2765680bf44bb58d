"""The bytes of request bodies that are being read: bounded in all, and for each owner.

A body that passes a bound is refused at once. To let it wait would not help: bodies that wait hold what has come of them, and
when all wait for room none of them ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lexora_gateway.errors import Refused, overloaded, too_many_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

# What one owner may hold of all.
OWNER_SHARE = 4
MAX_BYTES = 1024 * 1024 * 1024


class BufferedBytes:
    """Counts the bytes of all bodies that are being read; `most` may be held in all, and a quarter of it by each owner.

    An owner is whatever a caller names so, such as a client's address. One body of `max_body_bytes` fits in any case.
    """

    def __init__(self, most: int, max_body_bytes: int) -> None:
        self._most = max(most, max_body_bytes)
        self._share = max(most // OWNER_SHARE, max_body_bytes)
        self._by_owner: dict[str, int] = {}
        self.held = 0

    def check(self, length: int, owners: Sequence[str]) -> None:
        """Raise Refused when a body of this length would pass a bound now: 429 for its owner's, 503 for that of all."""
        for owner in owners:
            if self._by_owner.get(owner, 0) + length > self._share:
                raise Refused(too_many_bytes(owner, self._share))
        if self.held + length > self._most:
            raise Refused(overloaded(self._most))

    def add(self, count: int, owners: Sequence[str]) -> None:
        """Count so many more bytes of a body. Raises Refused as `check` does, and counts nothing then."""
        self.check(count, owners)
        self.held += count
        for owner in owners:
            self._by_owner[owner] = self._by_owner.get(owner, 0) + count

    def give_back(self, count: int, owners: Sequence[str]) -> None:
        """A body that had so many bytes is read, or will never be."""
        self.held -= count
        for owner in owners:
            left = self._by_owner.get(owner, 0) - count
            if left > 0:
                self._by_owner[owner] = left
            else:
                self._by_owner.pop(owner, None)
