"""Where `lexora keys` finds the keys: in a file, or at a running router. Both do the same, and raise KeysFailure."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from lexora_router.access.key_changes import InvalidKey, NoSuchKey, created, found, imported, revoked, rotated
from lexora_router.access.key_file import KeyFileError, edit_keys, read_keys
from lexora_router.access.key_format import NewKey
from lexora_router.access.key_record import KeyRecord


class KeysFailure(Exception):
    """It was not done; the message is one line for people."""


@dataclass(frozen=True, slots=True)
class Made:
    """A key that was made, and the one whose place it takes."""

    record: KeyRecord
    key: NewKey
    replaced: KeyRecord | None = None


class KeyPlace(Protocol):
    """Keys, wherever they are. `name` is for people, and so is `note`: what else is needed before a new key holds."""

    name: str
    note: str

    def create(self, wanted: KeyRecord) -> Made:
        """Make a key for these terms."""
        ...

    def show(self, given: str) -> KeyRecord:
        """The key with this id."""
        ...

    def all(self) -> Sequence[KeyRecord]:
        """Every key, in the order in which they were made."""
        ...

    def revoke(self, given: str) -> KeyRecord:
        """End a key now."""
        ...

    def rotate(self, given: str, overlap: timedelta, expires: datetime | None) -> Made:
        """Make a key that takes another's place."""
        ...

    def take(self, wanted: Sequence[KeyRecord]) -> Sequence[KeyRecord]:
        """Take over keys; gives those that were not there."""
        ...


def now() -> datetime:
    """The time, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


class KeysInFile:
    """A KeyPlace that is a file; a gateway that uses it follows."""

    def __init__(self, path: Path, note: str = "") -> None:
        self.name, self.note = str(path), note
        self._path = path

    def create(self, wanted: KeyRecord) -> Made:
        """Make a key for these terms."""
        with _failures():
            record, key = created(wanted, now())
            edit_keys(self._path, lambda records: [*records, record])
        return Made(record, key)

    def show(self, given: str) -> KeyRecord:
        """The key with this id."""
        with _failures():
            return found(self.all(), given)

    def all(self) -> Sequence[KeyRecord]:
        """Every key, in the order of the file."""
        with _failures():
            return list(read_keys(self._path).values())

    def revoke(self, given: str) -> KeyRecord:
        """End a key now."""
        with _failures():
            edit_keys(self._path, lambda records: revoked(records, given, now()))
        return self.show(given)

    def rotate(self, given: str, overlap: timedelta, expires: datetime | None) -> Made:
        """Make a key that takes another's place."""
        made: list[tuple[KeyRecord, NewKey]] = []

        def change(records: Sequence[KeyRecord]) -> list[KeyRecord]:
            changed, record, key = rotated(records, given, overlap, expires, now())
            made.append((record, key))
            return changed

        with _failures():
            edit_keys(self._path, change)
        return Made(*made[0], self.show(given))

    def take(self, wanted: Sequence[KeyRecord]) -> Sequence[KeyRecord]:
        """Take over keys; gives those that were not there."""
        added: list[KeyRecord] = []

        def change(records: Sequence[KeyRecord]) -> list[KeyRecord]:
            changed, new = imported(records, wanted, now())
            added.extend(new)
            return changed

        with _failures():
            edit_keys(self._path, change)
        return added


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except (KeyFileError, NoSuchKey) as error:
        raise KeysFailure(str(error.args[0])) from None
    except InvalidKey as error:
        raise KeysFailure(f"the key cannot be made: {error}") from None
