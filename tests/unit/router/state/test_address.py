"""Addresses of the store."""

import pytest

from lexora_router.state.address import Address, Kind, parse


@pytest.mark.parametrize(
    ("url", "address", "shown"),
    [
        ("valkey://store", Address(Kind.SERVER, False, (("store", 6379),)), "valkey://store:6379"),
        ("redis://store:7000/3", Address(Kind.SERVER, False, (("store", 7000),), database=3), "valkey://store:7000/3"),
        (
            "rediss://joe:p%40ss%2Fword@[::1]",
            Address(Kind.SERVER, True, (("::1", 6379),), "joe", "p@ss/word"),
            "valkeys://[::1]:6379",
        ),
        ("valkeys://:secret@store", Address(Kind.SERVER, True, (("store", 6379),), None, "secret"), "valkeys://store:6379"),
        (
            "valkey+sentinel://joe:pw@s1,s2:26380/main/2",
            Address(Kind.SENTINELS, False, (("s1", 26379), ("s2", 26380)), "joe", "pw", "main", 2),
            "valkey+sentinel://s1:26379,s2:26380/main/2",
        ),
        (
            "valkeys+cluster://a,b:7001",
            Address(Kind.CLUSTER, True, (("a", 6379), ("b", 7001))),
            "valkeys+cluster://a:6379,b:7001",
        ),
    ],
)
def test_addresses(url: str, address: Address, shown: str) -> None:
    assert parse(url) == address
    assert parse(url).shown == shown
    for secret in ("pw", "secret", "p@ss", "word"):
        assert secret not in shown + repr(parse(url))


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://store", "must begin with valkey://"),
        ("store:6379", "must begin with valkey://"),
        ("valkey+other://store", "must begin with valkey://"),
        ("valkey://", "has no host"),
        ("valkey://store:port", "bad host or port"),
        ("valkey://[::1", "is not an address"),
        ("valkey://a,b", "several hosts"),
        ("valkey://store?db=1", "must not contain '?'"),
        ("valkey://u:se#cret@store", "must not contain"),
        ("valkey://store/one", "number of a database"),
        ("valkey://store/1/2", "number of a database"),
        ("valkey+sentinel://store", "names no service"),
        ("valkey+cluster://store/1", "a cluster has one"),
        ("valkey://se cret", "spaces"),
        ("valkey+cluster://" + ",".join("abcdefgh" * 9), "more than 64 hosts"),
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(url: str, fault: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse(url)
    assert fault in str(refused.value)
    assert "cret" not in str(refused.value)
