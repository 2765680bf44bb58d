"""What the audit log makes of changes of keys and of failures, and its bounds."""

from msgspec.structs import replace
from tests.support.keys import PAST, record_of

from lexora_router.access.audit import KEPT, MAX_CHANGES, MAX_SUMS, AuditEvent, AuditLog, FailureSums, changes_of, note_changes
from lexora_router.access.key_format import new_key
from lexora_router.access.key_record import KeyRecord


def by_digest(*records: KeyRecord) -> dict[bytes, KeyRecord]:
    return {record.digest(): record for record in records}


def test_changes_are_named_by_what_they_are() -> None:
    kept, ended, turned, edited, gone = (record_of(new_key(), name=name) for name in "keteg")
    new = record_of(new_key(), name="n")
    successor = record_of(new_key(), rotated_from=turned.id)
    before = by_digest(kept, ended, turned, edited, gone)
    after = by_digest(
        replace(kept), replace(ended, revoked=PAST), replace(turned, expires=PAST), replace(edited, rate=2.0), new, successor
    )
    found = [(event, facts["key"]) for event, facts in changes_of(before, after)]
    assert found == [
        ("key_revoked", ended.id),
        ("key_changed", edited.id),
        ("key_created", new.id),
        ("key_rotated", successor.id),
        ("key_removed", gone.id),
    ]
    assert changes_of(after, after) == []


def test_very_many_changes_are_one_line() -> None:
    log = AuditLog()
    after = by_digest(*(record_of(new_key()) for _ in range(MAX_CHANGES + 1)))
    note_changes(log, changes_of({}, after), "file")
    assert [(event.event, event.facts) for event in log.events] == [
        ("keys_changed", {"by": "file", "key_created": MAX_CHANGES + 1})
    ]


def test_failures_are_summed_and_addresses_bounded() -> None:
    written: list[AuditEvent] = []
    sums = FailureSums(AuditLog(written.append, lambda: 5.0))
    for number in range(MAX_SUMS + 10):
        sums.add(f"10.0.{number // 256}.{number % 256}", "unknown")
    sums.add("10.0.0.0", "unknown")
    sums.flush()
    sums.flush()
    assert len(written) == MAX_SUMS + 1
    assert written[0].facts == {"address": "10.0.0.0", "cause": "unknown", "times": 2}
    assert written[-1].facts == {"address": "other", "cause": "unknown", "times": 10}


def test_the_last_events_are_kept() -> None:
    log = AuditLog()
    for _ in range(KEPT + 5):
        log.note("x", empty="", none=None, nothing=())
    assert (len(log.events), log.events[0].number, log.events[-1].facts) == (KEPT, 6, {})
