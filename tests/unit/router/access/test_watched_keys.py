"""The keys of a file in memory: what a change, a break and a bug do to them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.keys import PAST, add_key, change_key, record_of
from tests.support.wire import wait_until

from lexora_router.access import key_file, watched_keys
from lexora_router.access.audit import AuditLog
from lexora_router.access.key_changes import revoked, rotated
from lexora_router.access.key_file import KeyFileError, edit_keys, read_keys
from lexora_router.access.key_format import new_key
from lexora_router.access.key_record import KeyRecord
from lexora_router.access.watched_keys import WatchedKeys
from lexora_router.errors import AccessUnavailable


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_keys, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(watched_keys, "SETTLE_SECONDS", 0.005)


@asynccontextmanager
async def watching(keys: WatchedKeys) -> AsyncIterator[None]:
    task = asyncio.create_task(keys.watch())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(done: Callable[[], Any]) -> None:
    await asyncio.to_thread(wait_until, done, "it")


async def test_it_follows_its_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    first = add_key(path)
    keys, digest = WatchedKeys(path, AuditLog()), bytes.fromhex(first.digest)
    async with watching(keys):
        second = add_key(path)
        await until(lambda: keys.known(bytes.fromhex(second.digest)))
        change_key(path, first, revoked=PAST)
        await until(lambda: (found := keys.known(digest)) and found.revoked)
        good = path.read_bytes()
        path.unlink()
        await until(lambda: not keys.readable)
        assert len(keys) == 2
        assert await keys.find(digest) is not None
        with pytest.raises(AccessUnavailable):
            await keys.find(bytes.fromhex(new_key().digest))
        path.write_bytes(good)
        path.chmod(0o600)
        await until(lambda: keys.readable)
        assert await keys.find(bytes.fromhex(new_key().digest)) is None


async def test_a_file_that_others_may_write_is_not_read_until_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    add_key(path)
    keys = WatchedKeys(path, AuditLog())
    async with watching(keys):
        path.chmod(0o666)
        await until(lambda: not keys.readable)
        path.chmod(0o600)
        await until(lambda: keys.readable)


async def test_a_bug_in_one_look_does_not_end_the_watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.jsonl"
    add_key(path)
    keys, bugs, real = WatchedKeys(path, AuditLog()), list[Path](), watched_keys.read_keys

    def broken(path: Path) -> Any:
        bugs.append(path)
        if len(bugs) == 1:
            raise ZeroDivisionError
        return real(path)

    monkeypatch.setattr(watched_keys, "read_keys", broken)
    async with watching(keys):
        added = add_key(path)
        await until(lambda: keys.known(bytes.fromhex(added.digest)))
    assert len(bugs) == 2


async def test_an_edit_is_in_force_when_it_is_done_and_many_wait_in_one_line(tmp_path: Path) -> None:
    path, audit = tmp_path / "keys.jsonl", AuditLog()
    add_key(path)
    keys = WatchedKeys(path, audit)
    made = [new_key() for _ in range(20)]

    async def add(number: int) -> None:
        await keys.edit(lambda records: [*records, record_of(made[number])], "ops")
        assert keys.known(bytes.fromhex(made[number].digest)) is not None

    await asyncio.gather(*(add(number) for number in range(20)))
    assert [event.facts["by"] for event in audit.events] == ["ops"] * 20
    path.write_text("broken")
    with pytest.raises(KeyFileError):
        await keys.edit(lambda records: records, "ops")
    assert len(keys) == 21


async def test_an_edit_costs_no_more_work_for_the_keys_that_it_leaves_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, audit, parsed, made = tmp_path / "keys.jsonl", AuditLog(), list[bytes](), list[object]()
    edit_keys(path, lambda _: [record_of(new_key(), name=f"k{number}") for number in range(1000)])
    path.write_bytes(path.read_bytes().replace(b"\n", b"\n\n", 3).rstrip(b"\n"))  # as an editor may leave it
    keys = WatchedKeys(path, audit)
    decode, encode = key_file._record, key_file._encode
    monkeypatch.setattr(key_file, "_record", lambda line: parsed.append(line) or decode(line))
    monkeypatch.setattr(key_file, "_encode", lambda record: made.append(record) or encode(record))
    first, middle, last = (record.id for number, record in enumerate(keys.records()) if number in (0, 500, 999))
    now = datetime.now(UTC)
    for given in (first, middle, last):
        await keys.edit(lambda records, given=given: revoked(records, given, now), "ops")  # type: ignore[misc]
    await keys.edit(lambda records: rotated(records, [*records][1].id, timedelta(1), None, now)[0], "ops")
    heads, keys_made = 4, 3 + 2
    assert (len(parsed), len(made)) == (0, heads + keys_made)
    assert [event.event for event in audit.events] == ["key_revoked"] * 3 + ["key_rotated"]
    assert [*read_keys(path).items()] == [*keys._keys.items()]
    assert len(keys) == 1001
    assert {record.id for record in keys.records() if record.revoked} == {first, middle, last}


async def test_a_file_that_was_edited_by_hand_is_read_before_it_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, audit = tmp_path / "keys.jsonl", AuditLog()
    added = [add_key(path) for _ in range(3)]
    keys = WatchedKeys(path, audit)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], *lines[2:]]))  # the first one is taken out
    await keys.edit(lambda records: revoked(records, added[2].id, datetime.now(UTC)), "ops")
    assert [(event.event, event.facts["by"]) for event in audit.events] == [("key_removed", "file"), ("key_revoked", "ops")]
    assert [record.id for record in keys.records()] == [added[1].id, added[2].id]

    def by_two(records: Sequence[KeyRecord]) -> Sequence[KeyRecord]:
        path.write_bytes(b"".join(lines))
        return revoked(records, added[1].id, datetime.now(UTC))

    with pytest.raises(KeyFileError, match="another hand"):
        await keys.edit(by_two, "ops")
    assert path.read_bytes() == b"".join(lines)
    await keys.edit(lambda records: records[1:], "ops")
    assert [event.event for event in audit.events][-2:] == ["key_changed", "key_removed"]
    assert [record.id for record in read_keys(path).values()] == [added[1].id, added[2].id]


def test_without_its_file_it_does_not_begin(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be read"):
        WatchedKeys(tmp_path / "absent", AuditLog())
