"""ASGI applications on the facade's own connections."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from tests.unit.gateway.support import connected
from uvicorn.server import ServerState

from lexora_gateway.http.client_timeouts import Patience
from lexora_gateway.http.protocol import HttpProtocol
from lexora_gateway.http.site import Site

App = Callable[[Any, Any, Any], Awaitable[None]]
START = {"type": "http.response.start", "status": 200}
GET = b"GET /a%20b?c=d HTTP/1.1\r\nHost: x\r\nX-Twice: 1\r\nx-twice: 2\r\n\r\n"


@asynccontextmanager
async def served(app: App, patience: Patience | None = None) -> AsyncIterator[int]:
    site, state = Site(app, patience=patience or Patience()), ServerState()
    server = await asyncio.get_running_loop().create_server(lambda: HttpProtocol(site, state), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def answer(app: App, request: bytes = GET) -> bytes:
    async with served(app) as port, connected(port) as (reader, writer):
        writer.write(request)
        return await asyncio.wait_for(reader.readuntil(b"(end)"), 20)


async def test_the_scope_and_a_chunked_answer() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, await receive()))
        await send(START | {"headers": [(b"X", b"1")]})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"(end)"})

    assert await answer(app) == b"HTTP/1.1 200 OK\r\nx: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n5\r\n(end)"
    [(scope, message)] = seen
    assert message == {"type": "http.request", "body": b"", "more_body": False}
    assert (scope["type"], scope["method"], scope["http_version"], scope["scheme"]) == ("http", "GET", "1.1", "http")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b", b"/a%20b", b"c=d")
    assert scope["headers"] == [(b"host", b"x"), (b"x-twice", b"1"), (b"x-twice", b"2")]
    assert scope["client"][0] == scope["server"][0] == "127.0.0.1"


BAD: dict[str, list[dict[str, Any]]] = {
    "too short": [START | {"headers": [(b"content-length", b"6")]}, {"type": "http.response.body", "body": b"(end)"}],
    "too long": [START | {"headers": [(b"content-length", b"4")]}, {"type": "http.response.body", "body": b"(end)"}],
    "an unfit name": [START | {"headers": [(b"a b", b"1")]}],
    "an unfit value": [START | {"headers": [(b"a", b"1\r\nb: 2")]}],
    "no head": [{"type": "http.response.body", "body": b"(end)"}],
    "two heads": [START, START],
    "nothing": [],
}


@pytest.mark.parametrize("case", BAD)
async def test_an_answer_that_is_none_is_a_500_or_ends_the_connection(case: str) -> None:
    async def app(_: Any, __: Any, send: Any) -> None:
        for message in BAD[case]:
            await send(dict(message))

    with structlog.testing.capture_logs() as logs:
        async with served(app) as port, connected(port) as (reader, writer):
            writer.write(GET.replace(b"Host: x", b"Host: x\r\nConnection: close"))
            try:
                got = await asyncio.wait_for(reader.read(), 20)
            except ConnectionResetError:
                got = b""
    assert got.startswith(b"HTTP/1.1 500 ") == (case in ("an unfit name", "an unfit value", "no head", "nothing"))
    assert b"(end)" not in got
    assert [entry["event"] for entry in logs] == ["bug"]


async def test_a_client_that_leaves_is_reported_and_wakes_what_waits_to_send() -> None:
    paused, left = asyncio.Event(), asyncio.Event()

    async def app(_: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        for number in range(10_000):
            if number == 100:
                paused.set()
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
        assert await receive() == {"type": "http.disconnect"}
        left.set()

    async with served(app) as port:
        async with connected(port) as (reader, writer):
            writer.write(GET)
            await reader.readuntil(b"x")
            writer.transport.abort()
        await asyncio.wait_for(left.wait(), 20)
    assert paused.is_set()
