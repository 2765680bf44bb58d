"""What is stored of a key, and the principal that it makes."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta

from lexora_contract.access import Scope
from lexora_contract.priority import HIGH, LOW
from lexora_router.access.key_format import ID_LENGTH
from lexora_router.config.values import MAX_TENANT, tenant_name
from lexora_router.principal import Grants, Principal

MAX_PATTERNS = 256
_NO_GRANTS = Grants()  # most keys have none, and there may be 100,000

# Bounds that are looked at in C, for a file may have 100,000 of each; `digest` has the rest.
Id = Annotated[str, Meta(min_length=ID_LENGTH, max_length=ID_LENGTH)]
Digest = Annotated[str, Meta(min_length=64, max_length=64)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Tenant = Annotated[str, Meta(min_length=1, max_length=MAX_TENANT)]
Patterns = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...], Meta(max_length=MAX_PATTERNS)]
Rate = Annotated[float, Meta(gt=0, le=1e9)]
Count = Annotated[int, Meta(ge=1, le=2**53)]
Priority = Annotated[int, Meta(ge=LOW, le=HIGH)]
Instant = Annotated[datetime, Meta(tz=True)]


class KeyRecord(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """One key as it is stored: `sha256` of the whole key in hex, never the key.

    An unknown field is refused, for it may be a limit. `models` and `operations` are globs, none: all. `rate` is in requests
    per second. `revoked` and `expires` are instants; `rotated_from` is the id of the key whose place this one takes.
    """

    id: Id
    sha256: Digest
    name: Name
    tenant: Tenant
    scopes: tuple[Scope, ...] = (Scope.CALL,)
    models: Patterns = ()
    operations: Patterns = ()
    rate: Rate | None = None
    burst: Count | None = None
    tokens_per_minute: Count | None = None
    max_concurrent: Count | None = None
    priority: Priority | None = None
    max_priority: Priority | None = None
    created: Instant | None = None
    expires: Instant | None = None
    revoked: Instant | None = None
    rotated_from: Id | None = None

    def digest(self) -> bytes:
        """The SHA-256 as bytes. Raises ValueError for what is none, and for a name or tenant that cannot be."""
        if not (self.id.isascii() and self.id.isalnum()):
            raise ValueError("id must be 12 letters and digits")
        if not self.name.isprintable():
            raise ValueError("name must have no control characters")
        tenant_name(self.tenant)
        try:
            return bytes.fromhex(self.sha256)
        except ValueError:
            raise ValueError("sha256 must be 64 hex digits") from None

    def principal(self) -> Principal:
        """The caller that shows this key."""
        limits = (self.rate, self.burst, self.tokens_per_minute, self.max_concurrent, self.priority, self.max_priority)
        grants = Grants(*limits) if any(limit is not None for limit in limits) else _NO_GRANTS
        return Principal(self.tenant, self.id, self.name, self.models, self.operations, _granted(self.scopes), grants)

    def state(self, now: datetime) -> str:
        """`valid`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"


@lru_cache(64)
def _granted(scopes: tuple[Scope, ...]) -> frozenset[Scope]:
    return frozenset(scopes) | {Scope.KNOWN}


def instant(seconds: float) -> datetime:
    """Seconds since 1970 as an instant of whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC)
