"""Where keys are known from."""

from collections.abc import Iterable
from typing import Protocol

from lexora_router.access.key_file import Change
from lexora_router.access.key_record import KeyRecord


class KeySource(Protocol):
    """Keys by the SHA-256 of the whole key: a source gets no byte that a caller has chosen."""

    def known(self, digest: bytes) -> KeyRecord | None:
        """The key, if it is in memory; None: `find` it."""

    async def find(self, digest: bytes) -> KeyRecord | None:
        """The key, None if there is none. Raises AccessUnavailable where the source cannot be asked now."""
        ...

    @property
    def version(self) -> int:
        """Changes with what the source has: what was not there before may be there now."""
        ...


class KeyStore(KeySource, Protocol):
    """A source whose keys can be listed and changed."""

    @property
    def readable(self) -> bool:
        """Whether what it has is all that there is."""
        ...

    def __len__(self) -> int: ...

    def records(self) -> Iterable[KeyRecord]:
        """All keys."""
        ...

    async def edit(self, change: Change, by: str) -> None:
        """Change the keys by what `change` makes of their records; `by` is for the audit log.

        Raises KeyFileError or AccessUnavailable where that is not possible now, and what `change` raises, which may be called
        several times.
        """

    async def watch(self) -> None:
        """Follow what others change, until cancelled."""
