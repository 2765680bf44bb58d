from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.dns_server import DnsServer

from lexora_router.config.discover import DiscoverConfig
from lexora_router.discovery.dns_records import DnsRecords
from lexora_router.discovery.source import LookFailed

NAME = "pods.test"


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


def records(*servers: DnsServer, **settings: Any) -> DnsRecords:
    fields = {"dns": NAME, "port": 8000} if "srv" not in settings else {}
    return DnsRecords(DiscoverConfig(**fields | {"servers": [each.address for each in servers], "timeout": 3.0} | settings))


async def look(source: DnsRecords) -> Any:
    try:
        return list((await source.look()).addresses)
    except LookFailed as failure:
        return str(failure)


@pytest.mark.parametrize(
    ("ip", "wanted"),
    [
        ("auto", ["10.0.0.1:8000", "10.0.0.2:8000"]),
        ("ipv4", ["10.0.0.1:8000", "10.0.0.2:8000"]),
        ("ipv6", ["[fd00::1]:8000"]),
        ("both", ["10.0.0.1:8000", "10.0.0.2:8000", "[fd00::1]:8000"]),
    ],
)
async def test_addresses_of_a_name(server: DnsServer, ip: str, wanted: list[str]) -> None:
    server.say(NAME, "A", "10.0.0.2", "10.0.0.1")
    server.say(NAME, "AAAA", "fd00::1")
    assert await look(records(server, ip=ip)) == wanted


async def test_a_name_with_ipv6_alone_has_these(server: DnsServer) -> None:
    server.say(NAME, "AAAA", "fd00::1")
    assert await look(records(server)) == ["[fd00::1]:8000"]


@pytest.mark.parametrize(("ttl", "pause"), [(0, 5.0), (20, 20.0), (86400, 60.0)])
async def test_the_ttl_says_when_to_ask_again_within_bounds(server: DnsServer, ttl: int, pause: float) -> None:
    server.ttl = ttl
    server.say(NAME, "A", "10.0.0.1")
    assert (await records(server).look()).again_in == pause


async def test_services_have_ports_and_the_best_priority_counts(server: DnsServer) -> None:
    name = "_http._tcp.pods.test"
    server.say(name, "SRV", "10 5 8001 a.test.", "10 1 8002 b.test.", "20 1 8003 backup.test.", "10 1 8004 gone.test.")
    server.say("a.test", "A", "10.0.0.1")
    server.say("b.test", "AAAA", "fd00::2")
    server.say("backup.test", "A", "10.0.0.3")
    for source in (records(server, srv=name), records(server, dns=name, port=None)):
        assert await look(source) == ["10.0.0.1:8001", "[fd00::2]:8002"]
    server.say(name, "SRV", "0 0 0 .")
    assert "has no records" in await look(records(server, srv=name))


async def test_an_answer_that_is_cut_off_is_asked_for_over_tcp(server: DnsServer) -> None:
    server.cut = True
    server.say(NAME, "A", *(f"10.0.{n // 250}.{n % 250}" for n in range(600)))
    assert len(await look(records(server))) == 600
    assert [transport for *_, transport in server.asked] == ["udp", "tcp"]


async def test_another_server_is_asked_when_one_is_silent_or_broken(server: DnsServer) -> None:
    server.say(NAME, "A", "10.0.0.1")
    with DnsServer() as bad:
        bad.mood = "servfail"
        assert await look(records(bad, server)) == ["10.0.0.1:8000"]
        bad.mood = "silent"
        assert await look(records(bad, server)) == ["10.0.0.1:8000"]
        assert len(bad.asked) == 2


async def test_what_cannot_be_found_out_says_why(server: DnsServer) -> None:
    assert await look(records(server)) == "there is no such name (NXDOMAIN)"
    server.mood = "servfail"
    assert await look(records(server)) == f"no name server could answer: 127.0.0.1@{server.port} SERVFAIL"
    server.mood = "silent"
    assert await look(records(server, timeout=0.3)) == f"no answer within 0.3 s from 127.0.0.1@{server.port}"


async def test_an_empty_answer_counts_once_it_has_been_confirmed(server: DnsServer) -> None:
    source = records(server)
    server.say(NAME, "A", "10.0.0.1")
    assert await look(source) == ["10.0.0.1:8000"]
    server.say(NAME, "A")
    assert [await look(source), await look(source)] == [
        "the name has no records (answer 1 of 3 that must say so)",
        "the name has no records (answer 2 of 3 that must say so)",
    ]
    server.say(NAME, "A", "10.0.0.1")
    assert await look(source) == ["10.0.0.1:8000"]
    server.say(NAME, "A")
    assert [len(await look(source)) > 0, len(await look(source)) > 0, await look(source), await look(source)] == [
        True,
        True,
        [],
        [],
    ]
