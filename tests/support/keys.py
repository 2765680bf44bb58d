"""A file of keys for tests, written as the product writes it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from lexora_contract.access import Scope
from lexora_router.access.key_file import edit_keys
from lexora_router.access.key_format import NewKey, new_key
from lexora_router.access.key_record import KeyRecord

PAST = datetime.now(UTC) - timedelta(minutes=1)
ALL = (Scope.CALL, Scope.OBSERVE, Scope.ADMIN)


def record_of(key: NewKey, **fields: Any) -> KeyRecord:
    """What is stored of a key; its tenant is `team` unless `fields` has another."""
    return KeyRecord(**({"id": key.id, "sha256": key.digest, "name": "test", "tenant": "team"} | fields))


def add_key(path: Path, **fields: Any) -> NewKey:
    """Make a key, and add it to the file."""
    key = new_key()
    edit_keys(path, lambda records: [*records, record_of(key, **fields)])
    return key


def change_key(path: Path, key: NewKey, **fields: Any) -> None:
    """Change what is stored of a key."""

    def changed(record: KeyRecord) -> KeyRecord:
        return msgspec.structs.replace(record, **fields) if record.id == key.id else record

    edit_keys(path, lambda records: [changed(record) for record in records])


def mistyped(key: NewKey) -> NewKey:
    """The key with one other character in its secret."""
    place = len(key.text) - 20
    return replace(key, text=key.text[:place] + ("a" if key.text[place] != "a" else "b") + key.text[place + 1 :])
