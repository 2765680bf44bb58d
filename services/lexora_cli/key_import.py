"""Keys that clients have already, as people bring them: JSON lines, with the key itself or its hash."""

import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from lexora_cli.key_place import KeysFailure
from lexora_router.access.key_record import KeyRecord
from lexora_router.access.keys import LEAST_IMPORTED, MOST_IMPORTED

STDIN = "-"
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def read_import(source: str) -> list[KeyRecord]:
    """The records of a file, or of stdin; those without an id have an empty one. Raises KeysFailure, and repeats no value."""
    try:
        data = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
    except OSError as error:
        raise KeysFailure(f"{source}: cannot be read: {error.strerror or error}") from None
    return list(_records(source, data))


def _records(source: str, data: bytes) -> Iterator[KeyRecord]:
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip() or line.startswith(b'{"lexora_keys":'):
            continue
        try:
            yield _record(_decode(line))
        except (msgspec.DecodeError, ValueError) as error:
            raise KeysFailure(f"{source}:{number}: {error}") from None


def _record(fields: dict[str, Any]) -> KeyRecord:
    key = fields.pop("key", None)
    if key is not None:
        fields["sha256"] = _digest(key)
    if "sha256" not in fields:
        raise ValueError("needs `key`, or `sha256`")
    bare = not fields.get("id")
    fields.setdefault("tenant", fields.get("name"))
    # A stand-in for the id that is made where the key is kept.
    record = msgspec.convert({**fields, "id": fields.get("id") or "0" * 12}, KeyRecord)
    record.digest()
    return msgspec.structs.replace(record, id="") if bare else record


def _digest(key: object) -> str:
    if not isinstance(key, str) or not (LEAST_IMPORTED <= len(key) <= MOST_IMPORTED and key.isascii() and key.isprintable()):
        raise ValueError(f"`key` must be {LEAST_IMPORTED} to {MOST_IMPORTED} characters of printable ASCII")
    return sha256(key.encode()).hexdigest()
