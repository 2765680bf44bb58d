"""Clients that leave at each stage of a request: nothing of it stays, and its engine is left."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.support import wire
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import Do, chunk, stream_head
from tests.support.servers import base_config
from tests.support.streams import until
from tests.support.watched import WatchedGateway

SLOTS = 4
EVENT = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'


def chat(*, stream: bool) -> bytes:
    """A request for an answer that never ends."""
    return wire.request("/v1/chat/completions", json.dumps({"model": "m", "messages": [], "stream": stream}).encode())


class Client:
    """A connection that is left by FIN or by RST."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self._writer = reader, writer

    @classmethod
    async def to(cls, base: str, data: bytes) -> "Client":
        made = cls(*await asyncio.open_connection(*base.removeprefix("http://").split(":")))
        made.send(data)
        return made

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def leave(self, *, reset: bool) -> None:
        if reset:
            raw = self._writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class Scene:
    """A gateway in front of an engine with few slots, and what its clients are about when they leave."""

    def __init__(self, gateway: WatchedGateway, engine: LoopEngine) -> None:
        self.gateway, self._engine = gateway, engine

    async def in_the_head(self) -> Client:
        return await Client.to(self.gateway.http, chat(stream=True)[:40])

    async def in_the_body(self) -> Client:
        return await Client.to(self.gateway.http, chat(stream=True)[:-3])

    async def before_the_first_byte(self) -> Client:
        return await self._at_the_engine(Do.HANG, stream=True)

    async def in_a_whole_answer(self) -> Client:
        begin = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
        return await self._at_the_engine(begin, Do.HANG, stream=False)

    async def in_mid_stream(self) -> Client:
        client = await self._at_the_engine(stream_head() + chunk(EVENT), Do.HANG, stream=True)
        await client.reader.readuntil(EVENT)
        return client

    async def behind_pipelined_requests(self) -> Client:
        client = await self._at_the_engine(Do.HANG, stream=True)
        client.send(chat(stream=True) + chat(stream=False) + chat(stream=True)[:50])
        return client

    async def in_the_queue(self) -> Client:
        waiting = self.gateway.metric("lexora_queue_depth")
        client = await Client.to(self.gateway.http, chat(stream=True))
        await until(lambda: self.gateway.metric("lexora_queue_depth") > waiting, "a call that waits")
        return client

    async def _at_the_engine(self, *script: bytes | Do, stream: bool) -> Client:
        self._engine.answer(*script)
        before = len(self._engine.requests)
        client = await Client.to(self.gateway.http, chat(stream=stream))
        await self._engine.wait_requests(before + 1)
        return client


Stage = Callable[[Scene], Awaitable[Client]]
STAGES: list[Stage] = [
    Scene.in_the_head,
    Scene.in_the_body,
    Scene.before_the_first_byte,
    Scene.in_a_whole_answer,
    Scene.in_mid_stream,
    Scene.behind_pipelined_requests,
]


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_nothing_is_left_of_a_client_that_leaves(tmp_path: Path, reset: bool) -> None:
    async with LoopEngine("m") as engine:
        main = {"url": engine.url, "models": ["m"], "max_concurrency": SLOTS}
        with WatchedGateway(base_config(main=main), tmp_path) as gateway:
            scene, sockets = Scene(gateway, engine), gateway.sockets()
            for stage in STAGES:
                clients = [await stage(scene) for _ in range(3)]
                for client in clients:
                    await client.leave(reset=reset)
                await nothing_is_left(gateway, engine)
            holding = [await scene.before_the_first_byte() for _ in range(SLOTS)]
            asked = len(engine.requests)
            for client in [await scene.in_the_queue() for _ in range(5)]:
                await client.leave(reset=reset)
            await until(lambda: gateway.metric("lexora_queue_depth") == 0, "an empty queue")
            for client in holding:
                await client.leave(reset=reset)
            await nothing_is_left(gateway, engine)
            await until(lambda: gateway.sockets() <= sockets + 1, "all sockets to be closed")
            assert len(engine.requests) == asked, "what left the queue was asked of no engine"
            assert "Traceback" not in gateway.output


async def nothing_is_left(gateway: WatchedGateway, engine: LoopEngine) -> None:
    await asyncio.to_thread(wire.wait_idle, gateway.http)
    await engine.until(lambda: not engine.busy)
    await until(lambda: gateway.metric("lexora_http_connections") == 1, "no connection but the one that asks")
    await until(lambda: not gateway.tasks(), "all tasks to be done")
