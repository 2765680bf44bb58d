"""Clients that ping often: a long call survives it, a flood ends the connection."""

import asyncio

import pytest

from lexora_contract.rpcs import ROUTER
from lexora_router.edge.grpc_server import MIN_PING_INTERVAL_MS
from lexora_router.process.app import RouterApp
from tests.contract.messages import STREAM_FORMS, delta, streamed
from tests.support.http2 import ACK, DATA, GOAWAY, PING, Http2Client
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import Do, chunk, stream_head

# gRPC forgives two pings that come too early; the next one after these ends the connection.
ENOUGH = 5


async def test_pings_through_a_long_call(router: tuple[RouterApp, str], engine: LoopEngine) -> None:
    engine.answer(stream_head(), chunk(delta("a")), Do.HANG)
    async with Http2Client.connected(router[1]) as client:
        client.call(1, f"/{ROUTER}/Stream", streamed(**STREAM_FORMS["raw"]).SerializeToString())
        await client.until(DATA)
        for number in range(ENOUGH):
            client.ping(number)
            assert await client.until(PING, ACK) == number.to_bytes(8, "big")
            await asyncio.sleep(1.2 * MIN_PING_INTERVAL_MS / 1000)  # the spacing is what is tested
    await engine.wait_left()


async def test_a_flood_of_pings(router: tuple[RouterApp, str], engine: LoopEngine) -> None:
    engine.answer(stream_head(), chunk(delta("a")), Do.HANG)
    async with Http2Client.connected(router[1]) as client:
        client.call(1, f"/{ROUTER}/Stream", streamed(**STREAM_FORMS["raw"]).SerializeToString())
        await client.until(DATA)
        for number in range(ENOUGH):
            client.ping(number)
        with pytest.raises(AssertionError, match="too_many_pings"):
            await client.until(GOAWAY, 0xFF)
    await engine.wait_left()
