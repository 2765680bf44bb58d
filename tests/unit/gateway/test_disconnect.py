"""Clients that go away, and limits, over real sockets."""

import asyncio

import httpx
import pytest
import structlog
from tests.unit.gateway.support import (
    BODY,
    CHAT,
    STREAMED,
    Client,
    ScriptedRouter,
    connected,
    frames,
    hanging,
    make_app,
    post,
    serving,
    until,
    whole,
)

pytestmark = pytest.mark.usefixtures("both_sides")


async def stream_then_hang(router: ScriptedRouter, client: Client) -> None:
    await frames(b"data: 1\n\n")(router, client)
    await router.hang()


async def stream_for_ever(router: ScriptedRouter, client: Client) -> None:
    client.accepted()
    client.head()
    router.waiting.set()
    while True:
        await client.frames(b"data: " + b"x" * 65536 + b"\n\n")
        await asyncio.sleep(0)


async def assert_cancelled(router: ScriptedRouter) -> None:
    await asyncio.wait_for(router.cancelled.wait(), 20)
    assert router.active == 0


@pytest.mark.parametrize("body", [BODY, STREAMED])
async def test_leaving_before_the_head_cancels_the_call(body: bytes) -> None:
    router = ScriptedRouter()
    router.relays = hanging
    async with serving(make_app(router)) as port:
        with structlog.testing.capture_logs() as logs:
            async with connected(port) as (_, writer):
                writer.write(post(CHAT, body))
                await router.waiting.wait()
            await assert_cancelled(router)
    assert not logs


async def test_leaving_after_the_head_cancels_the_call() -> None:
    router = ScriptedRouter()
    router.relays = stream_then_hang
    async with serving(make_app(router)) as port:
        async with connected(port) as (reader, writer):
            writer.write(post(CHAT, STREAMED))
            await reader.readuntil(b"data: 1\n\n")
        await assert_cancelled(router)


@pytest.mark.parametrize("path", ["/generate", "/chat"])
@pytest.mark.parametrize("stream", ["true", "false"])
async def test_leaving_cancels_the_short_forms_too(path: str, stream: str) -> None:
    router = ScriptedRouter()
    router.generates = router.streams = hanging
    async with serving(make_app(router)) as port:
        async with connected(port) as (_, writer):
            writer.write(post(path, b'{"prompt": "x", "stream": %s}' % stream.encode()))
            await router.waiting.wait()
        await assert_cancelled(router)


async def test_a_client_that_stops_reading_and_leaves_cancels_the_call() -> None:
    router = ScriptedRouter()
    router.relays = stream_for_ever
    async with serving(make_app(router)) as port:
        async with connected(port) as (reader, writer):
            writer.write(post(CHAT, STREAMED))
            await reader.readuntil(b"data: ")
            await router.waiting.wait()
            writer.transport.abort()
        await assert_cancelled(router)


async def test_leaving_inside_the_body_asks_nothing() -> None:
    router = ScriptedRouter()
    async with serving(make_app(router)) as port:
        async with connected(port) as (_, writer):
            writer.write(post(CHAT, BODY)[:-1])
            await writer.drain()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.get("/health/live")).status_code == 200
    assert not router.asked


async def test_a_connection_serves_one_call_after_another() -> None:
    router = ScriptedRouter()
    async with serving(make_app(router)) as port, connected(port) as (reader, writer):
        for body in (BODY, STREAMED, BODY, STREAMED):
            router.relays = frames(b"data: [DONE]\n\n") if body is STREAMED else whole(b"{}")
            writer.write(post(CHAT, body))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            await reader.readuntil(b"0\r\n\r\n" if body is STREAMED else b"{}")
    assert not router.cancelled.is_set()


async def test_frames_arrive_when_they_are_emitted() -> None:
    router = ScriptedRouter()
    go_on = asyncio.Event()

    async def script(_: ScriptedRouter, client: Client) -> None:
        client.accepted()
        client.head()
        for number in range(3):
            go_on.clear()
            await client.frames(b"data: %d\n\n" % number)
            await go_on.wait()

    router.relays = script
    async with serving(make_app(router)) as port, connected(port) as (reader, writer):
        writer.write(post(CHAT, STREAMED))
        assert b"x-lexora-attempts: 2" in await reader.readuntil(b"\r\n\r\n")
        for number in range(3):
            go_on.set()
            await reader.readuntil(b"data: %d\n\n\r\n" % number)
        go_on.set()
        assert await reader.readuntil(b"0\r\n\r\n") == b"0\r\n\r\n"


async def test_a_declared_body_too_large_is_refused_before_it_is_sent() -> None:
    router = ScriptedRouter()
    async with serving(make_app(router)) as port, connected(port) as (reader, writer):
        writer.write(post(CHAT, b"")[:-4].replace(b"content-length: 0", b"content-length: 99999999") + b"\r\n\r\n")
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    assert b'"code":"request_too_large"' in answer
    assert not router.asked


async def test_no_body_is_invited_that_is_too_large() -> None:
    async with serving(make_app(ScriptedRouter())) as port, connected(port) as (reader, writer):
        head = post(CHAT, b"", "expect: 100-continue").replace(b"content-length: 0", b"content-length: 99999999")
        writer.write(head)
        assert (await reader.read()).startswith(b"HTTP/1.1 413 ")


async def test_a_chunked_body_is_read_no_further_than_the_limit() -> None:
    router = ScriptedRouter()
    async with serving(make_app(router)) as port, connected(port) as (reader, writer):
        head = post(CHAT, b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
        writer.write(head + b"200\r\n" + b"x" * 512 + b"\r\n")
        writer.write(b"200\r\n" + b"x" * 512 + b"\r\n")
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert not router.asked


async def test_an_ordinary_client_sees_the_413_of_a_large_body() -> None:
    async with (
        serving(make_app(ScriptedRouter(), max_body_bytes=100_000)) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        response = await http.post(CHAT, content=b"x" * 200_000, headers={"content-type": "application/json"})
        assert response.status_code == 413
        assert (await http.get("/health/live")).status_code == 200


async def test_every_gauge_is_back_after_many_clients_left() -> None:
    router = ScriptedRouter()
    router.relays = stream_then_hang
    async with serving(make_app(router)) as port:
        before = len(asyncio.all_tasks())
        for _ in range(20):
            async with connected(port) as (reader, writer):
                writer.write(post(CHAT, STREAMED))
                await reader.readuntil(b"data: 1\n\n")
        await until(lambda: router.active == 0)
        await until(lambda: len(asyncio.all_tasks()) <= before)


async def test_a_stream_reaches_a_client_of_http_1_0() -> None:
    router = ScriptedRouter()
    router.relays = frames(b"data: [DONE]\n\n")
    async with serving(make_app(router)) as port, connected(port) as (reader, writer):
        writer.write(post(CHAT, STREAMED).replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = await reader.read()
    assert b"data: [DONE]\n\n" in answer
