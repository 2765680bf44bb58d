"""What may be done to keys: each change makes another list of records from one. `now` is an instant."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from lexora_contract.access import Scope
from lexora_router.access.key_format import NewKey, new_id, new_key
from lexora_router.access.key_record import KeyRecord
from lexora_router.config.values import operation_pattern

Records = Sequence[KeyRecord]


class InvalidKey(ValueError):
    """What was asked for a key cannot be; the message names the field."""


class NoSuchKey(LookupError):
    """No key has this id."""

    def __init__(self, given: str) -> None:
        super().__init__(f"No key has the id {given[:80]!r}. `lexora keys list` shows the ids.")


def terms(name: str, tenant: str = "", **fields: object) -> KeyRecord:
    """What a key is to be for, before it is made; its tenant is its name unless it has one. None: not given."""
    given = {field: value for field, value in fields.items() if value is not None}
    return KeyRecord(id="", sha256="", name=name, tenant=tenant or name, **given)  # type: ignore[arg-type]  # see `checked`


def created(wanted: KeyRecord, now: datetime) -> tuple[KeyRecord, NewKey]:
    """A new key for these terms. Raises InvalidKey."""
    key = new_key()
    record = replace(wanted, id=key.id, sha256=key.digest, created=now, revoked=None, rotated_from=wanted.rotated_from)
    return checked(record, now), key


def checked(record: KeyRecord, now: datetime) -> KeyRecord:
    """The record as a file would give it. Raises InvalidKey for one that a file must not have, and for one that has expired."""
    try:
        found = msgspec.convert(msgspec.to_builtins(record), KeyRecord)
        found.digest()
        for pattern in found.operations:
            operation_pattern(pattern)
    except (msgspec.ValidationError, ValueError) as error:
        raise InvalidKey(str(error).replace("`$.", "`")) from None
    if Scope.FACADE in found.scopes and (len(found.scopes) > 1 or found.models or found.operations):
        raise InvalidKey("a key of a facade is that alone: it calls nothing, so it has no other scopes, models or operations")
    if found.state(now) == "expired":
        raise InvalidKey("it would have expired already")
    if found.priority is not None and found.max_priority is not None and found.priority > found.max_priority:
        raise InvalidKey("priority is above max_priority")
    return found


def found(records: Iterable[KeyRecord], given: str) -> KeyRecord:
    """The key with this id. Raises NoSuchKey."""
    for record in records:
        if record.id == given:
            return record
    raise NoSuchKey(given)


def revoked(records: Records, given: str, now: datetime) -> list[KeyRecord]:
    """The records with one revoked; one that was is left as it is. Raises NoSuchKey."""
    key = found(records, given)
    return _changed(records, key if key.revoked is not None else replace(key, revoked=now))


def rotated(
    records: Records, given: str, overlap: timedelta, expires: datetime | None, now: datetime
) -> tuple[list[KeyRecord], KeyRecord, NewKey]:
    """The records with a new key in the place of one, which holds for `overlap` beside it. Raises NoSuchKey and InvalidKey."""
    old = found(records, given)
    if old.state(now) != "valid":
        raise InvalidKey(f"the key {given} is {old.state(now)}; make another one with `lexora keys create`")
    record, key = created(replace(old, expires=expires or old.expires, rotated_from=old.id), now)
    end = now + overlap
    ended = replace(old, expires=end if old.expires is None else min(end, old.expires))
    return [*_changed(records, ended), record], record, key


def imported(records: Records, wanted: Iterable[KeyRecord], now: datetime) -> tuple[list[KeyRecord], list[KeyRecord]]:
    """The records with those that were not there, and these alone. Raises InvalidKey."""
    ids, digests = {record.id for record in records}, {record.sha256.lower() for record in records}
    added: list[KeyRecord] = []
    for each in wanted:
        if each.sha256.lower() in digests:
            continue
        record = checked(replace(each, id=each.id or new_id(), created=each.created or now), now)
        if record.id in ids:
            raise InvalidKey(f"the id {record.id} is another key's")
        ids.add(record.id)
        digests.add(record.sha256.lower())
        added.append(record)
    return [*records, *added], added


def _changed(records: Records, changed: KeyRecord) -> list[KeyRecord]:
    return [changed if record.id == changed.id else record for record in records]
