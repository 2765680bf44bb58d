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


async def test_no_body_is_invited_that_is_too_large() -> None:
    async with serving(make_app(ScriptedRouter())) as port, connected(port) as (reader, writer):
        head = post(CHAT, b"", "expect: 100-continue").replace(b"content-length: 0", b"content-length: 99999999")
        writer.write(head)
        assert (await reader.read()).startswith(b"HTTP/1.1 413 ")


async def test_an_ordinary_client_sees_the_413_of_a_large_body() -> None:
    async with (
        serving(make_app(ScriptedRouter(), max_body_bytes=100_000)) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        response = await http.post(CHAT, content=b"x" * 200_000, headers={"content-type": "application/json"})
        assert response.status_code == 413
        assert (await http.get("/health/live")).status_code == 200
