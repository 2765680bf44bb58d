"""Frames of HTTP/2 that no client of gRPC sends: the connection pays for them, and other clients are served meanwhile."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from lexora_contract.rpcs import ROUTER
from tests.support.calls import Caller
from tests.support.http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Http2Client,
    frame,
    rpc_head,
)
from tests.support.servers import Gateway, Simulator, base_config
from tests.support.strangers import resident
from tests.support.wire import wait_idle, wait_until

MODEL = "qwen3-32b"
MIB = 2**20
SECONDS = 1.0
# The most that a flood may take: 10,000 open streams, of which each takes 3 KiB, and what waits in sockets and allocators.
MOST = 120 * MIB
HEAD = rpc_head(f"/{ROUTER}/Health")


def resets(number: int) -> bytes:
    streams = range(200 * number + 1, 200 * number + 201, 2)
    return b"".join(frame(HEADERS, END_HEADERS, one, HEAD) + frame(RST_STREAM, 0, one, struct.pack(">I", 8)) for one in streams)


def streams(number: int) -> bytes:
    return b"".join(frame(HEADERS, END_HEADERS, one, HEAD) for one in range(200 * number + 1, 200 * number + 201, 2))


def endless_head(number: int) -> bytes:
    begin = frame(HEADERS, 0, 1, HEAD) if number == 0 else b""
    return begin + frame(CONTINUATION, 0, 1, b"\0\1a\x7e" + b"x" * 126) * 100


def empty_data(number: int) -> bytes:
    return (frame(HEADERS, END_HEADERS, 1, HEAD) if number == 0 else b"") + frame(DATA, 0, 1, b"") * 100


def always(data: bytes) -> Callable[[int], bytes]:
    return lambda _: data * 100


FLOODS: dict[str, Callable[[int], bytes]] = {
    "rapid reset": resets,
    "streams without a message": streams,
    "an endless head": endless_head,
    "empty data": empty_data,
    "pings": always(frame(PING, 0, 0, bytes(8))),
    "settings": always(frame(SETTINGS, 0, 0, b"")),
    "window updates": always(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1))),
    "priorities": always(frame(PRIORITY, 0, 1, b"\0\0\0\0\x10")),
    "garbage": always(b"\xff" * 100),
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    with (
        Simulator("--itl-ms", "1", "--ttft-ms", "1", model=MODEL) as sim,
        Gateway(base_config(main={"url": sim.url, "models": [MODEL]}), folder) as process,
    ):
        yield process


async def flood(target: str, frames: Callable[[int], bytes], until: asyncio.Event) -> int:
    """Send as fast as they are taken, on a new connection when one is ended; how many have been ended."""
    host, _, port = target.rpartition(":")
    ended = 0
    while not until.is_set():
        reader, writer = await asyncio.open_connection(host, int(port))
        reading = asyncio.create_task(thrown_away(reader))
        try:
            writer.write(PREFACE + frame(SETTINGS, 0, 0, b""))
            number = 0
            while not until.is_set() and not reading.done():
                writer.write(frames(number))
                number += 1
                await writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        finally:
            ended += not until.is_set()
            reading.cancel()
            writer.transport.abort()
            await asyncio.gather(reading, return_exceptions=True)
    return ended


async def thrown_away(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(2**16):
            pass


@contextlib.asynccontextmanager
async def flooded(gateway: Gateway, frames: Callable[[int], bytes]) -> AsyncIterator[None]:
    until = asyncio.Event()
    task = asyncio.create_task(flood(gateway.grpc, frames, until))
    try:
        yield
    finally:
        until.set()
        await task


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_costs_no_call_of_others_and_bounded_memory(gateway: Gateway, name: str) -> None:
    before = resident(gateway.pid)
    loop = asyncio.get_running_loop()
    async with flooded(gateway, FLOODS[name]), Caller(gateway.http) as caller:
        end, served = loop.time() + SECONDS, 0
        while loop.time() < end:
            answers = await caller.many(4, MODEL)
            assert {answer.status for answer in answers} == {200}
            served += len(answers)
    assert served >= 8
    assert gateway.alive
    assert resident(gateway.pid) - before < MOST
    assert "Traceback" not in gateway.output
    wait_idle(gateway.http)


HALF = 7 * MIB  # of a message of 8 MiB
STREAMS = 60


async def test_halves_of_messages_take_what_bodies_may_take(tmp_path: Path) -> None:
    config = base_config(main={"url": "http://127.0.0.1:1", "models": [MODEL]})
    config["server"] |= {"max_body_bytes": 8 * MIB, "max_buffered_bytes": 8 * MIB}  # what they may grow by, beside 16 of them
    with await asyncio.to_thread(Gateway, config, tmp_path) as gateway:
        before = resident(gateway.pid)
        async with Http2Client.connected(gateway.grpc) as client, asyncio.TaskGroup() as group:
            halves = Halves(client)
            reading = group.create_task(halves.read())
            await asyncio.wait_for(halves.ready.wait(), 20)
            sending = [group.create_task(halves.send(2 * number + 1)) for number in range(STREAMS)]
            async with asyncio.timeout(60):
                await asyncio.to_thread(gateway.wait_for, "requests_ended")
                await asyncio.gather(*sending)
            # Those that may be slow are held; what the others had is gone.
            most = 16 * HALF + 60 * MIB
            assert most < 0.5 * STREAMS * HALF
            await asyncio.to_thread(wait_until, lambda: resident(gateway.pid) - before < most, "the memory to be back", 30.0)
            async with Caller(gateway.http) as caller:
                assert (await caller.call("no-such-model")).status == 502
            reading.cancel()
        wait_idle(gateway.http)
    assert "Traceback" not in gateway.output


class Halves:
    """Sends halves of messages within the windows that the server gives (RFC 9113, section 5.2)."""

    def __init__(self, client: Http2Client) -> None:
        self._client = client
        self._initial = 65_535
        self._windows: dict[int, int] = {0: 65_535}
        self._news = asyncio.Event()
        self._ended: set[int] = set()
        self.ready = asyncio.Event()

    async def read(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                kind, flags, stream, payload = await self._client.read()
                if kind == WINDOW_UPDATE:
                    self._windows[stream] = self._windows.get(stream, self._initial) + int.from_bytes(payload, "big")
                elif kind == SETTINGS and not flags & ACK:
                    self._settings(payload)
                elif kind == PING and not flags & ACK:
                    self._client.send(frame(PING, ACK, 0, payload))
                elif kind == RST_STREAM:
                    self._ended.add(stream)
                self._news.set()

    def _settings(self, payload: bytes) -> None:
        for identifier, value in struct.iter_unpack(">HI", payload):
            if identifier == 4:  # SETTINGS_INITIAL_WINDOW_SIZE
                for stream in self._windows.keys() - {0}:
                    self._windows[stream] += value - self._initial
                self._initial = value
        self._client.send(frame(SETTINGS, ACK, 0, b""))
        self.ready.set()

    async def send(self, stream: int) -> None:
        self._client.send(frame(HEADERS, END_HEADERS, stream, rpc_head(f"/{ROUTER}/Generate")))
        self._windows.setdefault(stream, self._initial)
        left, first = HALF, b"\0" + struct.pack(">I", 8 * MIB)
        while left > 0 and stream not in self._ended:
            count = min(16_384, left, self._windows[stream], self._windows[0])
            if count < len(first):
                self._news.clear()
                await self._news.wait()
                continue
            for key in (0, stream):
                self._windows[key] -= count
            self._client.send(frame(DATA, 0, stream, first.ljust(count, b"x")))
            first, left = b"", left - count
            await asyncio.sleep(0)
