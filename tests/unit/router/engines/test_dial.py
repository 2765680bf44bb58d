import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import cast

import pytest
from aiohappyeyeballs import AddrInfoType, addr_to_addr_infos
from tests.support.black_hole import no_connection
from tests.support.clock import jumping, now

from lexora_router.engines import dial
from lexora_router.engines.dial import Dialer, only_one


@contextlib.contextmanager
def listening(*hosts: str) -> Iterator[tuple[int, list[socket.socket]]]:
    """One port at all these addresses, and the sockets that listen there."""
    with contextlib.ExitStack() as stack:
        found: list[socket.socket] = []
        port = 0
        for host in hosts:
            found.append(stack.enter_context(socket.create_server((host, port), backlog=64)))
            port = found[0].getsockname()[1]
        yield port, found


def dialer(port: int, *hosts: str) -> Dialer:
    async def resolve(host: str, port: int) -> list[AddrInfoType]:
        return [info for address in hosts for info in addr_to_addr_infos((address, port)) or []]

    return Dialer("engines.test", port, clock=time.monotonic, resolver=resolve)


async def connect(made: Dialer) -> socket.socket:
    return await made.race(await made.addresses())


async def peer(made: Dialer) -> str:
    async with asyncio.timeout(5):
        with await connect(made) as sock:
            return str(sock.getpeername()[0])


async def test_an_address_that_swallows_packets_is_passed_by_and_the_good_one_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with listening("127.0.0.3") as (port, _), no_connection("127.0.0.2", port):
        made = dialer(port, "127.0.0.2", "127.0.0.3")
        assert await peer(made) == "127.0.0.3"
        monkeypatch.setattr(dial, "ATTEMPT_DELAY_SECONDS", 3600.0)
        assert await peer(made) == "127.0.0.3", "it does not wait for the first one again"


async def test_a_good_address_that_fails_is_passed_by_and_forgotten() -> None:
    with listening("127.0.0.3") as (port, _), no_connection("127.0.0.2", port):
        made = dialer(port, "127.0.0.2", "127.0.0.3")
        await peer(made)
    with pytest.raises(ConnectionRefusedError):
        await peer(made)
    assert made.good is None
    with socket.create_server(("127.0.0.2", port)):
        assert await peer(made) == "127.0.0.2"
        assert made.good is None, "the resolver's order holds while its first address answers"


async def test_a_refused_address_costs_no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "ATTEMPT_DELAY_SECONDS", 3600.0)
    with listening("127.0.0.3") as (port, _):
        made = dialer(port, "127.0.0.2", "127.0.0.3")
        assert await peer(made) == "127.0.0.3"


async def test_names_that_rotate_go_on_to_rotate() -> None:
    with listening("127.0.0.2", "127.0.0.3") as (port, _):
        order = ["127.0.0.2", "127.0.0.3"]

        async def resolve(host: str, port: int) -> list[AddrInfoType]:
            order.reverse()
            return [info for address in order for info in addr_to_addr_infos((address, port)) or []]

        made = Dialer("engines.test", port, clock=time.monotonic, resolver=resolve)
        assert {await peer(made) for _ in range(4)} == {"127.0.0.2", "127.0.0.3"}


@jumping
async def test_a_resolver_that_hangs_has_one_question_however_many_ask() -> None:
    asked = 0

    async def resolve(host: str, port: int) -> list[AddrInfoType]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(60)
        raise OSError("late")

    made = Dialer("engines.test", 80, clock=now, resolver=resolve)

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await made.addresses()

    await asyncio.gather(*(impatient() for _ in range(100)))
    assert asked == 1
    await asyncio.sleep(60)  # its late error is not lost in the event loop
    await impatient()
    assert asked == 2
    await asyncio.sleep(60)


async def test_an_address_needs_no_resolver() -> None:
    async def resolve(host: str, port: int) -> list[AddrInfoType]:
        raise AssertionError("asked")

    with listening("127.0.0.1") as (port, _):
        made = await connect(Dialer("127.0.0.1", port, clock=now, resolver=resolve))
        assert made.getpeername() == ("127.0.0.1", port)
        made.close()


@pytest.mark.parametrize(
    ("hosts", "only"),
    [
        (["127.0.0.2"], ("127.0.0.2", 80)),
        (["::1"], ("::1", 80)),
        (["127.0.0.2", "127.0.0.3"], None),
    ],
)
async def test_a_single_address_needs_no_race(hosts: list[str], only: tuple[str, int] | None) -> None:
    found = await dialer(80, *hosts).addresses()
    assert only_one(found) == only
    scoped = [(family, kind, proto, name, ("fe80::1", 80, 0, 2)) for family, kind, proto, name, _ in found]
    assert only_one(cast("list[AddrInfoType]", scoped)) is None, "the interface belongs to it"


async def test_a_remembered_address_is_tried_against_the_order_after_a_while() -> None:
    hour = 0.0

    async def resolve(host: str, port: int) -> list[AddrInfoType]:
        return [info for address in ("127.0.0.2", "127.0.0.3") for info in addr_to_addr_infos((address, port)) or []]

    with listening("127.0.0.3") as (port, _):
        made = Dialer("engines.test", port, clock=lambda: hour, resolver=resolve)
        assert await peer(made) == "127.0.0.3"
        with socket.create_server(("127.0.0.2", port)):
            assert await peer(made) == "127.0.0.3"
            hour = dial.REMEMBER_SECONDS + 1
            assert await peer(made) == "127.0.0.2"
