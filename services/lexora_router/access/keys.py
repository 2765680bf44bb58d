"""From a key to its principal."""

import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from math import inf

import msgspec

from lexora_router.access.key_format import PREFIX, is_key
from lexora_router.access.key_record import KeyRecord
from lexora_router.access.key_source import KeySource
from lexora_router.errors import Unauthenticated
from lexora_router.principal import Principal

MAX_UNKNOWN = 4096  # keys that no source has, remembered by their digests
UNKNOWN_SECONDS = 30.0  # a source without a `version` of its own may have got one by then
MAX_READY = 2**17  # keys in use
# A key from elsewhere has no check: it is long enough to be one, and no longer than any is.
LEAST_IMPORTED, MOST_IMPORTED = 20, 512


class _Ready(msgspec.Struct, frozen=True, gc=False):
    """A key in use: what each call needs of it. No garbage collection looks at it, for there may be 100,000."""

    record: KeyRecord
    digest: bytes
    expires: float
    principal: Principal


def _ready(record: KeyRecord) -> _Ready:
    expires = inf if record.expires is None else record.expires.timestamp()
    return _Ready(record, record.digest(), expires, record.principal())


class Keys:
    """Finds principals by their keys. `clock` gives seconds since 1970; expiry is looked at on each use.

    What is looked up is the SHA-256 of the whole key. Raises Unauthenticated for a key that is malformed, unknown, expired or
    revoked: to callers the last three are one.
    """

    def __init__(self, source: KeySource, clock: Callable[[], float] = time.time) -> None:
        self._source = source
        self._clock = clock
        self._ready: dict[bytes, _Ready] = {}
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._version = source.version

    def known(self, key: str) -> Principal | None:
        """The principal of a key that is in memory, None where its source must be asked."""
        if not _possible(key):
            raise Unauthenticated(
                "This is no key of this gateway: it was cut off or mistyped. Copy the whole key again.", "malformed"
            )
        digest = sha256(key.encode()).digest()
        record = self._source.known(digest)
        return None if record is None else self._principal(digest, record)

    async def find(self, key: str) -> Principal:
        """The principal of a key. Raises AccessUnavailable as its source does."""
        digest, now = sha256(key.encode()).digest(), self._clock()
        if self._version != self._source.version:
            self._version = self._source.version
            self._unknown.clear()
        if self._unknown.get(digest, 0.0) > now:
            raise _refused("unknown")
        record = await self._source.find(digest)
        if record is not None:
            return self._principal(digest, record)
        self._unknown[digest] = now + UNKNOWN_SECONDS
        if len(self._unknown) > MAX_UNKNOWN:
            self._unknown.popitem(last=False)
        raise _refused("unknown")

    def _principal(self, digest: bytes, record: KeyRecord) -> Principal:
        ready = self._ready.get(digest)
        if ready is None or ready.record is not record:
            ready = self._ready[digest] = _ready(record)
            if len(self._ready) > MAX_READY:
                del self._ready[next(iter(self._ready))]
        if not compare_digest(ready.digest, digest):
            raise _refused("unknown")
        if record.revoked is not None:
            raise _refused("revoked")
        if ready.expires <= self._clock():
            raise _refused("expired")
        return ready.principal


def _possible(key: str) -> bool:
    if key.startswith(PREFIX):
        return is_key(key)
    return LEAST_IMPORTED <= len(key) <= MOST_IMPORTED and key.isascii() and key.isprintable()


def _refused(cause: str) -> Unauthenticated:
    return Unauthenticated("This key does not hold here: it is unknown, has expired or was revoked.", cause)
