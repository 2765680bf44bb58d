"""The audit log: changes of keys, refused credentials, acts of operators, reloads. No secret, and no text of a call."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lexora_router.access.key_record import KeyRecord
from lexora_router.access.pauses import with_pauses

KEPT = 1000
MAX_SUMS = 4096
MAX_CHANGES = 100
OTHER = "other"
# What has changed keys, where it was no operator: the file, from outside, or another process of this gateway.
FILE, ELSEWHERE = "file", "elsewhere"

Fact = str | int | Sequence[str]


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One entry: `number` counts from the start, `at` is in seconds since 1970."""

    number: int
    at: float
    event: str
    facts: Mapping[str, Fact]


def _nowhere(_event: AuditEvent) -> None:
    """Nothing."""


class AuditLog:
    """Gives each event to `write`, and remembers the last ones."""

    def __init__(self, write: Callable[[AuditEvent], None] = _nowhere, clock: Callable[[], float] = time.time) -> None:
        self.events: deque[AuditEvent] = deque(maxlen=KEPT)
        self._write = write
        self._clock = clock
        self._number = 0
        self.first: Callable[[], bool] = lambda: True  # of several processes that see the same

    def note_once(self, event: str, **facts: Fact | None) -> None:
        """Write down what every process of this gateway sees; one of them does it."""
        if self.first():
            self.note(event, **facts)

    def note(self, event: str, **facts: Fact | None) -> None:
        """Write an event down; facts that are empty are left out."""
        self._number += 1
        kept = {name: fact for name, fact in facts.items() if fact not in (None, "", (), [])}
        entry = AuditEvent(self._number, self._clock(), event, kept)
        self.events.append(entry)
        self._write(entry)


class FailureSums:
    """Refused credentials, summed: a line for each address and cause (and for a key that ended, its id), not for each try."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._sums: Counter[tuple[str, str, str]] = Counter()

    def add(self, address: str, cause: str, key: str = "") -> None:
        """One more; `key` is the public id of one that is known."""
        place = (address, cause, key)
        if place not in self._sums and len(self._sums) >= MAX_SUMS:
            place = (OTHER, cause, "")
        self._sums[place] += 1

    def flush(self) -> None:
        """Write down what was counted since the last time."""
        sums, self._sums = self._sums, Counter()
        for (address, cause, key), times in sums.items():
            self._audit.note("authentication_failed", address=address, cause=cause, key=key, times=times)


Changes = list[tuple[str, dict[str, Fact]]]


def changes_of(old: Mapping[bytes, KeyRecord], new: Mapping[bytes, KeyRecord]) -> Changes:
    """By what a file of keys differs from what it was: events and their facts."""
    return list(_changes(old, new))


def note_changes(audit: AuditLog, changes: Changes, by: str) -> None:
    """Write changes of keys down; of very many their number. Those that another process has made are written down there."""
    if by == ELSEWHERE:
        return
    note = audit.note_once if by == FILE else audit.note
    if len(changes) > MAX_CHANGES:
        note("keys_changed", by=by, **Counter(event for event, _ in changes))
        return
    for event, facts in changes:
        note(event, **facts, by=by)


def _changes(old: Mapping[bytes, KeyRecord], new: Mapping[bytes, KeyRecord]) -> Iterator[tuple[str, dict[str, Fact]]]:
    replaced = {record.rotated_from for digest, record in new.items() if digest not in old and record.rotated_from}
    for digest, record in with_pauses(new.items()):
        before = old.get(digest)
        if before is None:
            facts: dict[str, Fact] = {"key": record.id, "name": record.name, "tenant": record.tenant, "scopes": record.scopes}
            if record.rotated_from:
                yield "key_rotated", facts | {"rotated_from": record.rotated_from}
            else:
                yield "key_created", facts
        elif before is not record and before != record:
            yield from _change(before, record, in_rotation=record.id in replaced)
    for digest, record in with_pauses(old.items()):
        if digest not in new:
            yield "key_removed", {"key": record.id, "name": record.name, "tenant": record.tenant}


def _change(before: KeyRecord, record: KeyRecord, *, in_rotation: bool) -> Iterator[tuple[str, dict[str, Fact]]]:
    facts: dict[str, Fact] = {"key": record.id, "name": record.name, "tenant": record.tenant}
    if record.revoked is not None and before.revoked is None:
        yield "key_revoked", facts
        return
    fields = [name for name in record.__struct_fields__ if getattr(record, name) != getattr(before, name)]
    if not (in_rotation and fields == ["expires"]):
        yield "key_changed", facts | {"changed": fields}
