"""Slow clients over real sockets."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import pytest
from tests.unit.gateway.support import (
    BODY,
    CHAT,
    STREAMED,
    Client,
    ScriptedRouter,
    connected,
    make_app,
    port_of,
    post,
    running,
    serving,
    until,
    whole,
)

from lexora_gateway import Patience

SHORT = 0.1
LONG = 0.6  # where a client that is in time must not be late on a busy machine
GET = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"


async def rest(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.read(), 20)


@contextlib.asynccontextmanager
async def dripping(writer: asyncio.StreamWriter, piece: bytes) -> AsyncIterator[None]:
    """Send `piece` again and again."""

    async def drip() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(SHORT / 10)

    task = asyncio.create_task(drip())
    try:
        yield
    finally:
        task.cancel()


@pytest.mark.parametrize("start", [b"G", b"GET / HTTP/1.1\r\n", GET[:-1]])
async def test_a_head_that_stops_is_answered_408(start: bytes) -> None:
    async with serving(make_app(ScriptedRouter()), Patience(head=SHORT)) as port, connected(port) as (reader, writer):
        writer.write(start)
        answer = await rest(reader)
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"connection: close" in answer
    assert b'"code":"request_timeout"' in answer


async def test_a_head_that_drips_is_answered_408() -> None:
    async with serving(make_app(ScriptedRouter()), Patience(head=SHORT)) as port, connected(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n")
        async with dripping(writer, b"x: y\r\n"):
            answer = await rest(reader)
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_second_head_has_its_own_time() -> None:
    async with serving(make_app(ScriptedRouter()), Patience(head=LONG)) as port, connected(port) as (reader, writer):
        for _ in range(3):
            writer.write(GET[:20])
            await asyncio.sleep(LONG * 0.4)
            writer.write(GET[20:])
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
        writer.write(GET[:20])
        assert (await rest(reader)).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("filler", [b"\r\n", b""])
async def test_newlines_do_not_hold_a_connection(filler: bytes) -> None:
    async with serving(make_app(ScriptedRouter()), Patience(head=SHORT)) as port, connected(port) as (reader, writer):
        writer.write(GET)
        await reader.readuntil(b"}")
        writer.write(b"\r\n")
        async with dripping(writer, filler):
            with contextlib.suppress(ConnectionResetError):
                assert await rest(reader) == b""


async def test_a_body_that_nobody_reads_does_not_hold_a_connection() -> None:
    async with serving(make_app(ScriptedRouter()), Patience(head=SHORT)) as port, connected(port) as (reader, writer):
        writer.write(GET[:-2] + b"content-length: 60000\r\n\r\n")
        await reader.readuntil(b"}")
        async with dripping(writer, b"x"):
            with contextlib.suppress(ConnectionResetError):
                assert await rest(reader) == b""


async def test_a_connection_without_a_first_byte_is_closed_and_so_is_an_idle_one() -> None:
    async with serving(make_app(ScriptedRouter()), Patience(idle=LONG)) as port:
        async with connected(port) as (reader, _):
            assert await rest(reader) == b""
        async with connected(port) as (reader, writer):
            for _ in range(3):
                await asyncio.sleep(LONG * 0.4)
                writer.write(GET)
                assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
            assert await rest(reader) == b""


async def test_a_connection_that_is_busy_for_long_is_not_idle() -> None:
    router = ScriptedRouter()

    async def script(router: ScriptedRouter, client: Client) -> None:
        await asyncio.sleep(SHORT * 3)
        await whole(b"{}")(router, client)

    router.relays = script
    async with serving(make_app(router), Patience(idle=SHORT)) as port, connected(port) as (reader, writer):
        writer.write(post(CHAT, BODY))
        assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200 ")


async def test_a_head_sent_ahead_of_an_answer_waits_for_it() -> None:
    router = ScriptedRouter()
    go_on = asyncio.Event()

    async def script(router: ScriptedRouter, client: Client) -> None:
        await go_on.wait()
        await whole(b"{}")(router, client)

    router.relays = script
    async with serving(make_app(router), Patience(head=LONG)) as port, connected(port) as (reader, writer):
        writer.write(post(CHAT, BODY) + GET[:20])
        await asyncio.sleep(LONG * 1.2)
        go_on.set()
        assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200 ")
        await asyncio.sleep(LONG * 0.4)
        writer.write(GET[20:])
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("start", [b"", b'{"model":'])
@pytest.mark.parametrize("path", [CHAT, "/generate", "/v1/classify-task"])
async def test_a_silent_body_is_answered_408_and_asks_nothing(path: str, start: bytes) -> None:
    router = ScriptedRouter()
    app = make_app(router, patience=Patience(body=SHORT))
    async with serving(app) as port, connected(port) as (reader, writer):
        writer.write(post(path, b"x" * 500, "x-request-id: mine")[:-500] + start)
        answer = await rest(reader)
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"connection: close" in answer
    assert b"x-request-id: mine" in answer
    assert b'"code":"request_timeout"' in answer
    assert not router.asked


async def test_a_silent_client_that_wakes_up_reads_its_408() -> None:
    app = make_app(ScriptedRouter(), patience=Patience(body=SHORT), max_body_bytes=1_000_000)
    async with serving(app) as port, connected(port) as (reader, writer):
        head, _, body = post(CHAT, b"x" * 90_000).partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n" + body[:10])
        await asyncio.wait_for(reader.readuntil(b"408"), 20)
        # A connection closed at once would answer this with a reset, which loses what has not been read.
        writer.write(body[10:])
        await writer.drain()
        assert b'"code":"request_timeout"' in await rest(reader)


@pytest.mark.parametrize("body", [BODY, STREAMED])
async def test_a_body_that_arrives_slowly_costs_the_calls_own_time(body: bytes) -> None:
    router = ScriptedRouter()
    app = make_app(router, patience=Patience(body=SHORT * 4))
    async with serving(app) as port, connected(port) as (reader, writer):
        request = post(CHAT, body, "x-request-timeout: 10")
        started = time.monotonic()
        for piece in (request[:-3], request[-3:-2], request[-2:]):
            writer.write(piece)
            await asyncio.sleep(SHORT)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        passed = time.monotonic() - started
    assert 10 - passed <= (router.asked[0][2].timeout or 0) <= 10 - SHORT * 1.9


async def test_the_calls_time_runs_out_inside_the_body() -> None:
    router = ScriptedRouter()
    async with serving(make_app(router)) as port, connected(port) as (reader, writer):
        writer.write(post(CHAT, b"x" * 900, f"x-request-timeout: {SHORT}")[:-900])
        async with dripping(writer, b"x"):
            answer = await asyncio.wait_for(reader.readuntil(b"request_timeout"), 20)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert not router.asked


async def test_a_body_may_not_drip_for_ever_without_a_limit_of_its_own() -> None:
    app = make_app(ScriptedRouter(), max_request_timeout=SHORT)
    async with serving(app) as port, connected(port) as (reader, writer):
        writer.write(post(CHAT, b"x" * 900)[:-900])
        async with dripping(writer, b"x"):
            assert (await asyncio.wait_for(reader.readuntil(b"request_timeout"), 20)).startswith(b"HTTP/1.1 408 ")


async def test_a_wrong_time_limit_is_refused_before_the_body() -> None:
    async with serving(make_app(ScriptedRouter())) as port, connected(port) as (reader, writer):
        writer.write(post(CHAT, b"x" * 900, "x-request-timeout: soon")[:-900])
        answer = await rest(reader)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer


@contextlib.asynccontextmanager
async def deaf(port: int, request: bytes) -> AsyncIterator[socket.socket]:
    """A client that sends its request and reads nothing."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, request)
        yield client


@pytest.mark.parametrize("more", [(), ("connection: close",)])
async def test_a_whole_answer_that_nobody_reads_does_not_keep_the_connection(more: tuple[str, ...]) -> None:
    router = ScriptedRouter()
    router.relays = whole(b"x" * 20_000_000)
    async with (
        running(make_app(router), Patience(write=SHORT)) as server,
        deaf(port_of(server), post(CHAT, BODY, *more)),
    ):
        await until(lambda: bool(router.asked))
        assert server.server_state.connections
        await until(lambda: not server.server_state.connections)
