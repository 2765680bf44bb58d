import asyncio
import random

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.support import HANG, HEAD, Client, FakeEndpoint, Step, make_call, make_target

from lexora_router.errors import UpstreamBroken
from lexora_router.handler import Frames
from lexora_router.layers.balance import Balance

STREAMING: list[Step] = [HEAD, Frames(b"a")]


def balance() -> Balance:
    return Balance(randrange=random.Random(7).randrange, clock=now)


@jumping
async def test_the_attempt_is_written_down_and_counted_while_it_lasts() -> None:
    endpoint, call, client = FakeEndpoint(*STREAMING, 3.0), make_call(), Client()
    call.target = make_target(endpoint)
    await balance()(call, client)
    assert client.events == STREAMING
    assert (call.receipt.endpoint, call.receipt.attempts) == ("http://e:1", 1)
    assert call.receipt.dispatched_at == now() - 3.0
    assert endpoint.seen_in_flight == [1]
    assert endpoint.in_flight == 0


@pytest.mark.parametrize("before", [[], STREAMING], ids=["before the first event", "after it"])
@jumping
async def test_a_failure_gives_the_place_back(before: list[Step]) -> None:
    endpoint, call = FakeEndpoint(*before, UpstreamBroken("gone")), make_call()
    call.target = make_target(endpoint)
    with pytest.raises(UpstreamBroken):
        await balance()(call, Client())
    assert endpoint.in_flight == 0
    assert call.receipt.attempts == 1


@pytest.mark.parametrize("before", [[], STREAMING], ids=["while waiting", "while streaming"])
@jumping
async def test_a_client_that_leaves_gives_the_place_back(before: list[Step]) -> None:
    endpoint, client = FakeEndpoint(*before, HANG), Client()
    task = asyncio.create_task(balance()(make_call(target=make_target(endpoint)), client))
    await endpoint.begun()
    await client.got(len(before))
    assert endpoint.in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (endpoint.in_flight, endpoint.cancelled) == (0, 1)


@jumping
async def test_a_burst_is_spread_because_a_place_counts_when_it_is_chosen() -> None:
    endpoints = [FakeEndpoint(5.0, address=f"http://e:{i}") for i in range(2)]
    target = make_target(*endpoints)
    layer = balance()
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(layer(make_call(target=target), Client()))
    assert [len(endpoint.calls) for endpoint in endpoints] == [10, 10]
    assert [endpoint.in_flight for endpoint in endpoints] == [0, 0]


@jumping
async def test_a_broken_endpoint_is_left_out_while_another_lives() -> None:
    down, up = FakeEndpoint(healthy=False, address="http://down:1"), FakeEndpoint(healthy=True)
    target = make_target(down, up)
    for _ in range(20):
        await balance()(make_call(target=target), Client())
    assert (len(down.calls), len(up.calls)) == (0, 20)
