"""What may be done to keys, without a file."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from tests.support.keys import record_of

from lexora_contract.access import Scope
from lexora_router.access.key_changes import InvalidKey, NoSuchKey, created, found, imported, revoked, rotated, terms
from lexora_router.access.key_format import is_key, new_key
from lexora_router.access.key_record import KeyRecord

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_a_key_is_made_for_its_terms() -> None:
    record, key = created(terms("ci", models=("m*",), rate=None, scopes=(Scope.CALL, Scope.ADMIN)), NOW)
    assert (record.id, record.sha256, record.created) == (key.id, sha256(key.text.encode()).hexdigest(), NOW)
    assert (record.tenant, record.rate, record.scopes) == ("ci", None, (Scope.CALL, Scope.ADMIN))
    assert is_key(key.text)
    assert record.state(NOW) == "valid"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "control characters"),
        ({"tenant": "t" * 300}, "tenant"),
        ({"tenant": "a\x00"}, "control characters"),
        ({"tenant": "acme/vip"}, "tenant.*'/'.*rate_limit.users"),  # the limits of acme's user vip
        ({"name": "acme/vip"}, "tenant.*'/'"),
        ({"rate": 0.0}, "rate"),
        ({"burst": 0}, "burst"),
        ({"priority": 101}, "priority"),
        ({"priority": 60, "max_priority": 50}, "above max_priority"),
        ({"models": ("m",) * 300}, "models"),
        ({"expires": NOW}, "expired already"),
        ({"operations": ("/v1/chat/*", "chat")}, "operations are paths, .*'chat'"),
        ({"scopes": (Scope.FACADE, Scope.ADMIN)}, "a key of a facade"),
        ({"scopes": (Scope.FACADE,), "models": ("m",)}, "a key of a facade"),
    ],
)
def test_terms_that_cannot_be(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(InvalidKey, match=problem):
        created(terms(**({"name": "n"} | fields)), NOW)  # type: ignore[arg-type]  # by intent


def test_a_revoked_key_stays_and_is_revoked_once() -> None:
    first, second = record_of(new_key()), record_of(new_key())
    once = revoked([first, second], second.id, NOW)
    assert [record.state(NOW) for record in once] == ["valid", "revoked"]
    assert revoked(once, second.id, NOW + HOUR) == once
    with pytest.raises(NoSuchKey):
        revoked(once, "absent", NOW)


@pytest.mark.parametrize(
    ("expires", "overlap", "old_ends"),
    [
        (None, HOUR, NOW + HOUR),
        (NOW + 2 * HOUR, HOUR, NOW + HOUR),
        (NOW + HOUR / 2, HOUR, NOW + HOUR / 2),
        (None, timedelta(), NOW),
    ],
)
def test_a_rotated_key_holds_beside_the_new_one_for_a_while(
    expires: datetime | None, overlap: timedelta, old_ends: datetime
) -> None:
    other, old = record_of(new_key()), record_of(new_key(), rate=3.0, expires=expires)
    records, record, key = rotated([other, old], old.id, overlap, None, NOW)
    assert (records[0], records[2]) == (other, record)
    assert (record.rate, record.tenant, record.expires, record.rotated_from) == (3.0, old.tenant, expires, old.id)
    assert record.sha256 == key.digest != old.sha256
    assert records[1].expires == old_ends
    assert records[1].state(old_ends - timedelta(seconds=1)) == "valid"
    assert records[1].state(old_ends) == "expired"


def test_only_a_key_that_holds_is_rotated() -> None:
    key = record_of(new_key(), revoked=NOW)
    with pytest.raises(InvalidKey, match="is revoked"):
        rotated([key], key.id, HOUR, None, NOW)
    assert (
        rotated([record_of(new_key()), good := record_of(new_key())], good.id, HOUR, NOW + HOUR, NOW)[1].expires == NOW + HOUR
    )


def test_what_is_imported_is_added_once() -> None:
    here = record_of(new_key())
    foreign = KeyRecord(id="", sha256="ab" * 32, name="f", tenant="f")
    records, added = imported([here], [foreign, here, foreign], NOW)
    assert [record.name for record in added] == ["f"]
    assert (records[0], len(records), len(added[0].id), added[0].created) == (here, 2, 12, NOW)
    assert imported(records, [foreign], NOW) == (records, [])
    with pytest.raises(InvalidKey, match="another key's"):
        imported([here], [KeyRecord(id=here.id, sha256="cd" * 32, name="f", tenant="f")], NOW)
    with pytest.raises(InvalidKey, match="'/'"):
        imported([here], [KeyRecord(id="", sha256="cd" * 32, name="f", tenant="acme/f")], NOW)
    with pytest.raises(InvalidKey, match="64 hex"):
        imported([here], [KeyRecord(id="", sha256="x" * 64, name="f", tenant="f")], NOW)
    assert found(records, here.id) is here
