"""Keys in the contract's words, and back."""

from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from msgspec.structs import replace

from lexora.v1 import keys_pb2, principal_pb2
from lexora_contract.access import Scope
from lexora_router.access.key_record import KeyRecord, instant
from lexora_router.errors import InvalidRequest

SCOPES = {
    Scope.CALL: principal_pb2.SCOPE_CALL,
    Scope.OBSERVE: principal_pb2.SCOPE_OBSERVE,
    Scope.ADMIN: principal_pb2.SCOPE_ADMIN,
    Scope.FACADE: principal_pb2.SCOPE_FACADE,
}
_SCOPE_OF: dict[int, Scope] = {number: scope for scope, number in SCOPES.items()}
_STATES = {
    "valid": keys_pb2.KEY_STATE_VALID,
    "expired": keys_pb2.KEY_STATE_EXPIRED,
    "revoked": keys_pb2.KEY_STATE_REVOKED,
}
_OPTIONAL = ("rate", "burst", "tokens_per_minute", "max_concurrent", "priority", "max_priority")
_TIMES = {"create_time": "created", "expire_time": "expires", "revoke_time": "revoked"}
# Python's instants end with the year 9999.
_LAST_SECOND = 253402300799


def key_message(record: KeyRecord, now: datetime) -> keys_pb2.Key:
    """What is stored of a key, without its hash."""
    message = keys_pb2.Key(
        id=record.id,
        name=record.name,
        tenant=record.tenant,
        scopes=[SCOPES[scope] for scope in record.scopes if scope in SCOPES],
        models=record.models,
        operations=record.operations,
        rotated_from=record.rotated_from or "",
        state=_STATES[record.state(now)],
    )
    for name in _OPTIONAL:
        value = getattr(record, name)
        if value is not None:
            setattr(message, name, value)
    for name, field in _TIMES.items():
        value = getattr(record, field)
        if value is not None:
            getattr(message, name).FromDatetime(value)
    return message


def terms_of(message: keys_pb2.Key, sha256: str = "", **kept: str) -> KeyRecord:
    """What a client may say of a key that is made or imported; not checked yet. Raises InvalidRequest."""
    given = {name: getattr(message, name) for name in _OPTIONAL if message.HasField(name)}  # type: ignore[arg-type]  # its fields
    return KeyRecord(
        id=kept.get("id", ""),
        sha256=sha256.lower(),
        name=message.name,
        tenant=message.tenant or message.name,
        scopes=_scopes(message.scopes),
        models=tuple(message.models),
        operations=tuple(message.operations),
        expires=time_of(message.expire_time, "key.expire_time") if message.HasField("expire_time") else None,
        **given,
    )


def record_of(message: keys_pb2.Key) -> KeyRecord:
    """The key that a router shows, whose hash it keeps to itself."""
    times = {field: instant(getattr(message, name).seconds) for name, field in _TIMES.items() if message.HasField(name)}  # type: ignore[arg-type]  # its fields
    record = terms_of(message, id=message.id)
    return replace(record, **times, rotated_from=message.rotated_from or None)


def time_of(message: Timestamp, field: str) -> datetime:
    """An instant. Raises InvalidRequest."""
    if not 0 <= message.seconds <= _LAST_SECOND:
        raise InvalidRequest(f"{field} must be a time from 1970 to 9999.", field)
    return instant(message.seconds)


def now() -> datetime:
    """The time, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def _scopes(numbers: Sequence[int]) -> tuple[Scope, ...]:
    unknown = [number for number in numbers if number not in _SCOPE_OF]
    if unknown:
        raise InvalidRequest("key.scopes has one that this version does not have.", "key.scopes")
    return tuple(dict.fromkeys(_SCOPE_OF[number] for number in numbers)) or (Scope.CALL,)
