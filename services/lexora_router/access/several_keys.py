"""Keys of a file and keys that replicas share, as one."""

import asyncio
from collections.abc import Iterable

from lexora_router.access.key_changes import InvalidKey
from lexora_router.access.key_file import Change
from lexora_router.access.key_record import KeyRecord
from lexora_router.access.key_source import KeyStore
from lexora_router.errors import AccessUnavailable


class SeveralKeys:
    """A KeyStore of two. A key stays where it is; new ones go to the shared ones."""

    def __init__(self, file: KeyStore, shared: KeyStore) -> None:
        self._file = file
        self._shared = shared

    def __len__(self) -> int:
        return len(self._file) + len(self._shared)

    def known(self, digest: bytes) -> KeyRecord | None:
        """The key, if one of them has it in memory."""
        return self._file.known(digest) or self._shared.known(digest)

    async def find(self, digest: bytes) -> KeyRecord | None:
        """The same. Raises AccessUnavailable where neither has it, and one of them cannot be asked."""
        unavailable: AccessUnavailable | None = None
        for store in (self._file, self._shared):
            try:
                if (found := await store.find(digest)) is not None:
                    return found
            except AccessUnavailable as error:
                unavailable = error
        if unavailable is not None:
            raise unavailable
        return None

    @property
    def version(self) -> int:
        """Changes with each of them."""
        return self._file.version + self._shared.version

    @property
    def readable(self) -> bool:
        """Whether both can be read."""
        return self._file.readable and self._shared.readable

    def records(self) -> Iterable[KeyRecord]:
        """All keys, those of the file first."""
        yield from self._file.records()
        yield from self._shared.records()

    async def edit(self, change: Change, by: str) -> None:
        """Change both, as each raises; a key of the file is changed there."""
        own = {record.id for record in self._file.records()}
        records = list(change(list(self.records())))
        if len({record.id for record in records}) < len(records):
            raise InvalidKey("another key has this id")
        before = {record.id: record for record in self.records()}
        changed = [record for record in records if before.get(record.id) is not record]
        in_file = {record.id: record for record in changed if record.id in own}
        elsewhere = {record.id: record for record in changed if record.id not in own}
        if elsewhere:
            await self._shared.edit(lambda records: _with(records, elsewhere), by)
        if in_file:
            await self._file.edit(lambda records: _with(records, in_file), by)

    async def watch(self) -> None:
        """Follow both until cancelled."""
        await asyncio.gather(self._file.watch(), self._shared.watch())


def _with(records: Iterable[KeyRecord], changed: dict[str, KeyRecord]) -> list[KeyRecord]:
    left = dict(changed)
    return [left.pop(record.id, record) for record in records] + list(left.values())
