"""Where keys are known from."""

from typing import Protocol

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
