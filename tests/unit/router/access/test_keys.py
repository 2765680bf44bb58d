"""From a key to its principal: what each use looks at, and what is remembered of keys that are not there."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.keys import PAST, mistyped, record_of

from lexora_contract.access import Scope
from lexora_router.access.key_format import NewKey, new_key
from lexora_router.access.key_record import KeyRecord, instant
from lexora_router.access.keys import MAX_UNKNOWN, UNKNOWN_SECONDS, Keys
from lexora_router.errors import AccessUnavailable, Unauthenticated
from lexora_router.principal import Principal


class Source:
    """Keys in memory, and others that must be asked for."""

    def __init__(self, *records: KeyRecord) -> None:
        self.records = {bytes.fromhex(record.sha256): record for record in records}
        self.elsewhere: dict[bytes, KeyRecord] = {}
        self.asked: list[bytes] = []
        self.broken = False
        self.version = 0

    def known(self, digest: bytes) -> KeyRecord | None:
        return self.records.get(digest)

    async def find(self, digest: bytes) -> KeyRecord | None:
        self.asked.append(digest)
        if self.broken:
            raise AccessUnavailable("not now")
        return self.elsewhere.get(digest)


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def cause(keys: Keys, key: NewKey) -> str:
    with pytest.raises(Unauthenticated) as caught:
        keys.known(key.text)
    return caught.value.cause


def test_a_key_makes_its_principal() -> None:
    key = new_key()
    record = record_of(key, name="n", tenant="t", models=("m*",), operations=("/v1/*",), rate=2.0, max_priority=50)
    principal = Keys(Source(record)).known(key.text)
    assert isinstance(principal, Principal)
    assert (principal.tenant, principal.key, principal.name) == ("t", key.id, "n")
    assert principal.scopes == {Scope.CALL, Scope.KNOWN}
    assert (principal.grants.rate, principal.grants.max_priority, principal.grants.burst) == (2.0, 50, None)
    assert Keys(Source(record)).known(new_key().text) is None


def test_expiry_is_looked_at_on_each_use() -> None:
    key, clock = new_key(), Clock()
    keys = Keys(Source(record_of(key, expires=instant(clock.now + 10))), clock)
    assert keys.known(key.text) is keys.known(key.text) is not None
    clock.now += 9.9
    assert keys.known(key.text) is not None
    clock.now += 0.2
    assert cause(keys, key) == "expired"


def test_a_key_that_was_in_use_ends_when_its_record_changes() -> None:
    key = new_key()
    source = Source(record_of(key))
    keys = Keys(source)
    assert keys.known(key.text)
    source.records[bytes.fromhex(key.digest)] = record_of(key, revoked=PAST)
    assert cause(keys, key) == "revoked"
    source.records.clear()
    assert keys.known(key.text) is None


def test_a_malformed_key_is_not_looked_up() -> None:
    key = new_key()
    keys = Keys(Source(record_of(mistyped(key), sha256=mistyped(key).digest)))
    assert cause(keys, mistyped(key)) == "malformed"
    for text in ("", "short", "k" * 600, "pass wörd that is long enough", "sk-lx-", key.text + "\n"):
        with pytest.raises(Unauthenticated, match="cut off or mistyped"):
            keys.known(text)


async def test_a_key_from_elsewhere_is_found_by_its_digest() -> None:
    foreign = NewKey("f" * 12, "sk-from-another-gateway-0123456789")
    keys = Keys(Source(record_of(foreign)))
    found = keys.known(foreign.text)
    assert found is not None
    assert found.key == "f" * 12


async def test_what_is_not_there_is_asked_for_once_in_a_while() -> None:
    key, clock, source = new_key(), Clock(), Source()
    keys = Keys(source, clock)
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await keys.find(key.text)
    assert len(source.asked) == 1
    clock.now += UNKNOWN_SECONDS + 1
    source.elsewhere[bytes.fromhex(key.digest)] = record_of(key)
    assert (await keys.find(key.text)).key == key.id


async def test_a_change_of_the_source_forgets_what_was_not_there() -> None:
    key, source = new_key(), Source()
    keys = Keys(source)
    with pytest.raises(Unauthenticated):
        await keys.find(key.text)
    source.broken, source.version = True, 1
    with pytest.raises(AccessUnavailable):
        await keys.find(key.text)


async def test_the_memory_of_unknown_keys_is_bounded_and_outages_are_not_remembered() -> None:
    source = Source()
    keys = Keys(source, Clock())
    for number in range(MAX_UNKNOWN + 100):
        with pytest.raises(Unauthenticated):
            await keys.find(f"{number:020}")
    assert len(keys._unknown) == MAX_UNKNOWN
    source.broken = True
    with pytest.raises(AccessUnavailable):
        await keys.find("another-unknown-key-0")


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=20, max_size=80))
def test_no_part_of_a_key_finds_it(text: str) -> None:
    key = new_key()
    keys = Keys(Source(record_of(key)))
    for other in (key.text[:-1], key.text[1:], key.text + "A", key.digest, text):
        with contextlib.suppress(Unauthenticated):
            assert keys.known(other) is None
