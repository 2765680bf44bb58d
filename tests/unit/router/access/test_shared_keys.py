"""Shared keys of two replicas at one store in memory."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from tests.support.keys import record_of

from lexora_router.access.audit import AuditLog
from lexora_router.access.key_changes import NoSuchKey, revoked, rotated
from lexora_router.access.key_format import NewKey, new_key
from lexora_router.access.key_record import KeyRecord
from lexora_router.access.shared_keys import SharedKeys, _Edit
from lexora_router.errors import AccessUnavailable
from lexora_router.state.link import StateLink
from lexora_router.state.memory import InMemoryState, Store
from lexora_router.state.programs import PROGRAMS
from lexora_router.state.programs.keys import KeyText


@dataclass
class Replica:
    link: StateLink
    keys: SharedKeys
    audit: AuditLog

    async def add(self, **fields: object) -> NewKey:
        key = new_key()
        await self.during(self.keys.edit(lambda records: [*records, record_of(key, **fields)], "ops"))
        return key

    async def during(self, edit: object) -> None:
        """Exchange until the edit is done."""
        task = asyncio.ensure_future(edit)  # type: ignore[arg-type]
        while not task.done():
            await self.link.exchange()
            await asyncio.sleep(0)
        await task

    async def read(self) -> None:
        self.keys._more = True
        await self.link.exchange()


async def replica(store: Store) -> Replica:
    link, audit = StateLink(InMemoryState(store, time.monotonic), PROGRAMS, timeout=1.0, clock=time.monotonic), AuditLog()
    keys = SharedKeys(link, audit)
    link.join(keys)
    for _ in range(2):
        await link.exchange()
    assert keys.readable
    return Replica(link, keys, audit)


def found(keys: SharedKeys, key: NewKey) -> KeyRecord | None:
    return keys.known(bytes.fromhex(key.digest))


async def test_a_revocation_is_not_lost_by_a_change_that_was_made_from_an_older_record() -> None:
    store, now = Store(PROGRAMS), datetime.now(UTC)
    one, two = await replica(store), await replica(store)
    key = await one.add(name="a")
    await two.read()
    assert found(two.keys, key)
    await one.during(one.keys.edit(lambda records: revoked(records, key.id, now), "ops"))
    seen: list[str] = []

    def renamed(records: Sequence[KeyRecord]) -> list[KeyRecord]:
        seen.extend(record.state(now) for record in records)
        return [msgspec.structs.replace(record, name="b") for record in records]

    await two.during(two.keys.edit(renamed, "others"))
    assert seen == ["valid", "revoked"]  # it was made again, from what the first one has left
    await one.read()
    for each in (one, two):
        record = found(each.keys, key)
        assert record is not None
        assert (record.name, record.state(now)) == ("b", "revoked")
    assert [(event.event, event.facts["by"]) for event in two.audit.events] == [
        ("key_created", "another replica"),
        ("key_revoked", "another replica"),
        ("key_changed", "others"),
    ]


async def test_a_change_of_many_keys_takes_several_exchanges() -> None:
    one = await replica(Store(PROGRAMS))
    made = [record_of(new_key(), name=f"k{number}" + "x" * 100) for number in range(1000)]
    await one.during(one.keys.edit(lambda records: [*records, *made], "ops"))
    assert [record.id for record in one.keys.records()] == [record.id for record in made]
    await one.during(
        one.keys.edit(lambda records: rotated(records, made[5].id, timedelta(0), None, datetime.now(UTC))[0], "ops")
    )
    assert len(one.keys) == 1001
    with pytest.raises(NoSuchKey):
        await one.keys.edit(lambda records: revoked(records, "x", datetime.now(UTC)), "ops")


async def test_a_key_that_cannot_be_read_is_left_alone_and_a_loss_of_the_store_ends_an_edit() -> None:
    store = Store(PROGRAMS)
    one = await replica(store)
    await one.add(name="a")
    one.keys._edit = edit = _Edit([KeyText("later", 0, '{"of":"a later version"}')], "ops")
    await one.link.exchange()
    assert await edit.done == ""
    one.keys._edit = None
    two = await replica(store)
    assert [record.name for record in two.keys.records()] == ["a"]
    assert two.keys._by_id["later"].record is None
    two.keys.alone(1.0, 0.0)
    with pytest.raises(AccessUnavailable):
        await two.keys.edit(lambda records: [*records, record_of(new_key())], "ops")
    with pytest.raises(AccessUnavailable):
        await two.keys.find(b"unknown")
