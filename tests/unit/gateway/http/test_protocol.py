import asyncio
import re
from itertools import pairwise

import pytest
from tests.unit.gateway.support import (
    BODY,
    CHAT,
    Client,
    ScriptedRouter,
    connected,
    hanging,
    make_app,
    port_of,
    post,
    running,
    serving,
    whole,
)

from lexora_gateway.http import closing, protocol
from lexora_gateway.http.refusal import MAX_HEAD_BYTES


async def answer_to(*pieces: bytes) -> bytes:
    """What comes back until the server closes, each piece sent by itself."""
    async with serving(make_app(ScriptedRouter())) as port, connected(port) as (reader, writer):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        return await asyncio.wait_for(reader.read(), 20)


async def round_trip(port: int) -> None:
    """What was written before on other connections has been read when a new one has been answered."""
    async with connected(port) as (reader, writer):
        writer.write(b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        await reader.read()


def refused(answer: bytes) -> bool:
    return (
        answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
        and b"connection: close" in answer
        and answer.count(b'"code":"request_head_too_large"') == 1
    )


async def test_a_head_too_large_in_one_piece() -> None:
    headers = [f"x-{number}: {'y' * 1000}" for number in range(70)]
    assert refused(await answer_to(post(CHAT, BODY, *headers)))


@pytest.mark.parametrize(
    "start",
    [b"GET /health/live HTTP/1.1\r\nx-long: ", b"GET /health/live?", b"GET /health/live HTTP/1.1\r\nx", b"\r\n\r\n"],
)
async def test_a_head_without_end(start: bytes) -> None:
    # Before the first byte of a request the parser eats newlines for ever.
    filler = (b"\r\n" if start.startswith(b"\r\n") else b"yy") * 512
    answer = await answer_to(start, *[filler] * (MAX_HEAD_BYTES // len(filler) + 2))
    assert refused(answer)


async def test_many_small_headers_without_end() -> None:
    assert refused(await answer_to(b"GET / HTTP/1.1\r\n", *[b"x-header: value\r\n" * 100] * 50))


async def test_a_head_too_large_is_refused_once() -> None:
    head = post(CHAT, b"x" * 200_000, f"x: {'y' * MAX_HEAD_BYTES}")
    assert refused(await answer_to(head[:1000], head[1000:]))


async def test_a_whole_head_too_large_in_two_pieces() -> None:
    head = post(CHAT, BODY, f"x: {'y' * (MAX_HEAD_BYTES)}")
    async with serving(make_app(ScriptedRouter())) as port, connected(port) as (reader, writer):
        writer.write(head[:60_000])
        await round_trip(port)
        writer.write(head[60_000:])
        assert refused(await asyncio.wait_for(reader.read(), 20))


async def test_a_head_just_within_the_bound_passes() -> None:
    pad = "y" * (MAX_HEAD_BYTES - 1000)
    answer = await answer_to(f"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: {pad}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_long_body_does_not_count_as_head() -> None:
    router = ScriptedRouter()
    body = b"x" * 300_000
    async with serving(make_app(router, max_body_bytes=1_000_000)) as port, connected(port) as (reader, writer):
        for _ in range(3):
            writer.write(post(CHAT, body))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await reader.readuntil(b"{}")
    assert len(router.asked) == 3


async def test_a_body_that_comes_in_many_reads_ends_where_its_length_says() -> None:
    router = ScriptedRouter()
    bodies = [bytes(65 + (at * number) % 26 for at in range(100_000 + number)) for number in range(3)]
    sent = b"".join(post(CHAT, body) for body in bodies) + post(CHAT, b"", "connection: close")
    # The last piece of each body is met alone, with what follows, and with a part of the next head.
    cuts = [0, 10, 1000, 60_000, 100_400, 100_800, 150_000, 200_500, 200_850, 250_000, len(sent)]
    async with serving(make_app(router, max_body_bytes=1_000_000)) as port, connected(port) as (reader, writer):
        for start, end in pairwise(cuts):
            writer.write(sent[start:end])
            await round_trip(port)
        answer = await asyncio.wait_for(reader.read(), 20)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"200", b"200", b"400"]
    assert [call.body for _, call, _ in router.asked] == bodies


@pytest.mark.parametrize("filler", [b"x-trailer: value\r\n" * 100, b"y" * 2000])
async def test_trailers_without_end_are_refused(filler: bytes) -> None:
    router = ScriptedRouter()
    head = post(CHAT, b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
    async with serving(make_app(router)) as port, connected(port) as (reader, writer):
        writer.write(head + b"2\r\n{}\r\n0\r\n")
        # What shares a read with the body is not counted.
        writer.write(filler * (10 * MAX_HEAD_BYTES // len(filler)))
        assert refused(await asyncio.wait_for(reader.read(), 20))
    assert not router.asked


async def test_trailers_are_not_headers() -> None:
    router = ScriptedRouter()
    head = post(CHAT, b"", "connection: close").replace(b"content-length: 0", b"transfer-encoding: chunked")
    async with serving(make_app(router)) as port, connected(port) as (reader, writer):
        writer.write(head + b"2\r\n{}\r\n0\r\nx-request-id: trailer\r\n\r\n")
        assert b"x-request-id: trailer" not in await reader.read()
    assert router.asked[0][1].body == b"{}"


async def test_what_is_no_http_gets_a_400_in_the_usual_shape() -> None:
    answer = await answer_to(b"nonsense\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b'{"error":{"message":"Invalid HTTP request received: Invalid method encountered."' in answer


async def test_a_refusal_waits_for_the_answer_before_it() -> None:
    router = ScriptedRouter()
    go_on = asyncio.Event()

    async def waiting(router: ScriptedRouter, client: Client) -> None:
        router.waiting.set()
        await go_on.wait()
        await whole(b"{}")(router, client)

    router.relays = waiting
    async with serving(make_app(router)) as port, connected(port) as (reader, writer):
        # The second request's body is malformed, so it is none: it never reaches the router.
        writer.write(
            post(CHAT, BODY) + post(CHAT, b"").replace(b"content-length: 0", b"transfer-encoding: chunked") + b"zz\r\n"
        )
        await router.waiting.wait()
        writer.write(post(CHAT, BODY))
        go_on.set()
        answer = await asyncio.wait_for(reader.read(), 20)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"400"]
    assert b"Invalid character in chunk size" in answer
    assert len(router.asked) == 1


async def test_a_client_that_leaves_behind_pipelined_requests_cancels_the_one_under_way() -> None:
    for together in (3, 0):
        router = ScriptedRouter()
        router.relays = hanging
        async with serving(make_app(router)) as port:
            async with connected(port) as (_, writer):
                writer.write(post(CHAT, BODY) * (1 + together))
                await router.waiting.wait()
                for _ in range(3 - together):
                    writer.write(post(CHAT, BODY))
                    await round_trip(port)
            await asyncio.wait_for(router.cancelled.wait(), 20)
        assert len(router.asked) == 1


async def test_a_client_that_sends_no_more_gets_what_it_reads_and_no_call_works_on_for_it() -> None:
    get = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    router = ScriptedRouter()
    router.relays = hanging
    async with serving(make_app(router)) as port:
        for sent, answers in ((get, 1), (get * 3, 3), (get[:-2], 0), (post(CHAT, BODY), 0)):
            async with connected(port) as (reader, writer):
                writer.write(sent)
                writer.write_eof()
                answer = await asyncio.wait_for(reader.read(), 20)
            assert answer.count(b"HTTP/1.1 200 OK\r\n") == answers, sent
        await asyncio.wait_for(router.cancelled.wait(), 20)


async def test_pipelined_requests_are_bounded_and_all_answered() -> None:
    router = ScriptedRouter()
    go_on = asyncio.Event()

    async def waiting(router: ScriptedRouter, client: Client) -> None:
        router.waiting.set()
        await go_on.wait()
        await whole(b"{}")(router, client)

    router.relays = waiting
    async with running(make_app(router)) as server, connected(port_of(server)) as (reader, writer):
        writer.write(post(CHAT, BODY))
        await router.waiting.wait()
        [connection] = server.server_state.connections
        for _ in range(3 * protocol.MAX_PIPELINED):
            writer.write(post(CHAT, BODY))
            await round_trip(port_of(server))
        assert len(connection._turns.waiting) == protocol.MAX_PIPELINED
        go_on.set()
        for _ in range(1 + 3 * protocol.MAX_PIPELINED):
            assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"{}"), 20)


async def test_a_malformed_body_of_an_answer_that_has_begun_ends_the_connection() -> None:
    router = ScriptedRouter()
    head = post("/nothing", b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
    async with serving(make_app(router)) as port, connected(port) as (reader, writer):
        writer.write(head)
        answer = await reader.readuntil(b"}}")
        writer.write(b"zz\r\n")
        answer += await asyncio.wait_for(reader.read(), 20)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"404"]


@pytest.mark.parametrize("declared", [True, False])
async def test_a_refused_client_that_is_still_sending_gets_its_answer(declared: bool) -> None:
    body = b"x" * 8_000_000
    head = post(CHAT, body).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    if not declared:
        head = head.replace(b"content-length: 8000000", b"transfer-encoding: chunked") + b"7a1200\r\n"
    async with serving(make_app(ScriptedRouter())) as port, connected(port) as (reader, writer):
        # A client that reads only after it has sent everything: a reset would lose the answer.
        writer.write(head)
        for start in range(0, len(body), 100_000):
            writer.write(body[start : start + 100_000])
            await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 20)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.count(b"HTTP/1.1") == 1


async def test_a_refused_client_that_sends_for_ever_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "LINGER_BYTES", 1_000_000)
    head = post(CHAT, b"").replace(b"content-length: 0", b"content-length: 99999999")
    async with serving(make_app(ScriptedRouter())) as port, connected(port) as (_, writer):
        writer.write(head)

        async def send_for_ever() -> None:
            while True:
                writer.write(b"x" * 100_000)
                await writer.drain()

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(send_for_ever(), 20)


async def test_a_refused_client_that_falls_silent_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "LINGER_SECONDS", 0.05)
    head = post(CHAT, b"").replace(b"content-length: 0", b"content-length: 99999999")
    app = make_app(ScriptedRouter())
    async with serving(app) as port, connected(port) as (reader, writer):
        writer.write(head)
        assert (await reader.read()).startswith(b"HTTP/1.1 413 ")

        async def send_slowly() -> None:
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(send_slowly(), 20)
