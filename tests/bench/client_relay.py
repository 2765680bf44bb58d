"""The same small server twice, to tell two HTTP clients apart: it asks the engine with Lexora's own, or with aiohttp.

python -m tests.bench.client_relay own|aiohttp http://127.0.0.1:PORT       prints "listening on 127.0.0.1:PORT"
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Protocol, cast

import aiohttp
import httptools
import uvloop
from yarl import URL

from lexora_contract.port import Flow
from lexora_router.engines.transport import Transport, head

if TYPE_CHECKING:
    from lexora_router.engines.response import Response

JSON = {"content-type": "application/json"}


class Engine(Protocol):
    """Where the answers come from."""

    async def answer(self, path: str, body: bytes, client: Client) -> None:
        """Ask, and write what comes to the client."""


class Client(asyncio.Protocol):
    """One client's connection: a task for each request."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.body = b""
        self.path = ""
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.path = url.decode()

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        body, self.body = self.body, b""
        self.task = asyncio.get_running_loop().create_task(self.engine.answer(self.path, body, self))

    def connection_lost(self, error: Exception | None) -> None:
        if self.task:
            self.task.cancel()

    def begin(self, status: int, content_type: str) -> None:
        lines = f"HTTP/1.1 {status} OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
        self.transport.write(lines.encode())

    def data(self, data: bytes) -> None:
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self.transport.write(b"0\r\n\r\n")


class Own:
    """Lexora's own client: pieces go from the engine's read to the client's write in one call stack."""

    def __init__(self, base: str) -> None:
        self.base = URL(base)
        clock = asyncio.get_running_loop().time
        self.origin = Transport(connect_timeout=5, clock=clock).origin(self.base)

    async def answer(self, path: str, body: bytes, client: Client) -> None:
        request = head("POST", self.base.with_path(path), {**JSON, "content-length": str(len(body))}) + b"\r\n"
        connection = await self.origin.send(request, body, ToClient(client), Flow())
        await connection.ended()


class ToClient:
    """What takes the answer, for Lexora's client."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.data, self.end = client.data, client.end

    def begin(self, response: Response) -> ToClient:
        self.client.begin(response.status, response.content_type)
        return self


class Aiohttp:
    """The usual client for asyncio, without what costs time here: no limit, nothing decoded."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)

    async def answer(self, path: str, body: bytes, client: Client) -> None:
        async with self.session.post(self.base + path, data=body, headers=JSON) as answer:
            client.begin(answer.status, answer.headers["content-type"])
            async for piece in answer.content.iter_any():
                client.data(piece)
        client.end()


async def serve(kind: str, base: str) -> None:
    """Serves on a free port of the loopback until the process is ended."""
    async with contextlib.AsyncExitStack() as stack:
        engine: Engine = Own(base) if kind == "own" else Aiohttp(base)
        if isinstance(engine, Aiohttp):
            await stack.enter_async_context(engine.session)
        server = await asyncio.get_running_loop().create_server(lambda: Client(engine), "127.0.0.1", 0, backlog=4096)
        print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(*sys.argv[1:]))
