"""Rpcs whose message comes slowly or not at all are bounded in number and in time; what comes as usual is none of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest
from structlog.testing import capture_logs

from lexora.v1.health_pb2 import HealthRequest
from lexora.v1.router_pb2_grpc import RouterServiceStub
from lexora_contract.rpcs import ROUTER
from lexora_router.config import Config
from lexora_router.edge.arriving_requests import ArrivingRequests
from lexora_router.edge.grpc_server import GrpcServer
from lexora_router.process.app import RouterApp
from tests.support.http2 import DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, Http2Client, frame, message

SLOW = 0.02
RPCS = (
    f"{ROUTER}/Health",
    f"{ROUTER}/Generate",
    f"{ROUTER}/Stream",
    "grpc.health.v1.Health/Check",
    "grpc.channelz.v1.Channelz/GetServers",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
)


@dataclass
class Memory:
    """Of the process, as it would be found."""

    grown: int = 0

    def __call__(self) -> int:
        return 10**6 + self.grown


@asynccontextmanager
async def served(least: int, seconds: float, memory: Memory | None = None) -> AsyncIterator[tuple[str, ArrivingRequests]]:
    app, arriving = RouterApp(Config()), ArrivingRequests(1000, memory or Memory(), least=least, seconds=seconds, slow=SLOW)
    server = GrpcServer(app.services, max_body_bytes=1000, write_timeout=60, arriving=arriving)
    port = await server.start("127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{port}", arriving
    finally:
        await server.stop(0)
        await app.stop()


async def comes_to(arriving: ArrivingRequests, count: int) -> None:
    async with asyncio.timeout(20):
        while arriving.count != count:  # noqa: ASYNC110 - the product has no event for that
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("rpc", RPCS)
async def test_a_message_that_does_not_come_ends_its_rpc(rpc: str) -> None:
    async with served(100, 0.3) as (target, arriving), Http2Client.connected(target) as client:
        client.begin(1, f"/{rpc}")
        client.send(frame(DATA, 0, 1, message(b"x" * 100)[:50]))  # half a message is none
        await comes_to(arriving, 1)
        assert (await client.next_of(HEADERS, END_STREAM))[2] == 1
        assert (await client.next_of(RST_STREAM))[2] == 1, "nothing more is taken of it"
        assert arriving.count == 0


async def test_of_too_many_slow_ones_the_newest_end_and_others_are_served() -> None:
    memory = Memory()
    with capture_logs() as lines:
        async with served(3, 60, memory) as (target, arriving), Http2Client.connected(target) as client:
            for stream in (1, 3, 5):
                client.begin(stream, f"/{ROUTER}/Health")
            await comes_to(arriving, 3)
            client.begin(7, f"/{ROUTER}/Generate")
            await comes_to(arriving, 4)
            await asyncio.sleep(5 * SLOW)  # none ends while there is room for all
            assert arriving.count == 4
            memory.grown = 1001
            assert (await client.next_of(HEADERS, END_STREAM))[2] == 7
            assert arriving.count == 3
            async with grpc.aio.insecure_channel(target) as channel:
                for _ in range(5):
                    await RouterServiceStub(channel).Health(HealthRequest(), timeout=20)
            assert arriving.count == 3
            client.send(frame(DATA, END_STREAM, 1, message(b"")))  # late, and served
            assert (await client.next_of(HEADERS, END_HEADERS))[2] == 1
            await comes_to(arriving, 2)
    ended = [line for line in lines if line["event"] == "requests_ended"]
    assert [(line["times"], line["slow"]) for line in ended] == [(1, 4)]


async def test_clients_that_leave_are_forgotten() -> None:
    async with served(100, 60) as (target, arriving):
        async with Http2Client.connected(target) as client:
            client.begin(1, f"/{ROUTER}/Health")
            client.begin(3, f"/{ROUTER}/Generate")
            await comes_to(arriving, 2)
        await comes_to(arriving, 0)
