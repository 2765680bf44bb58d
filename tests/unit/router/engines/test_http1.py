import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from tests.support.raw_server import LAST_CHUNK, Do, RawServer, Step, chunk, closed_port, reply, stream_head

from lexora_contract.port import Flow
from lexora_router.engines import http1
from lexora_router.engines.origin import Origin
from lexora_router.engines.response import Answer, Body, Response
from lexora_router.engines.transport_errors import ConnectError, StaleConnection, TransportError

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@asynccontextmanager
async def origin(port: int, connect_timeout: float = 1.0) -> AsyncIterator[Origin]:
    made = Origin("127.0.0.1", port, security=None, connect_timeout=connect_timeout, clock=time.monotonic)
    try:
        yield made
    finally:
        made.close()
        await asyncio.sleep(0)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - a connection has no event for it
            await asyncio.sleep(0.001)


class Kept:
    """An answer that is kept; `fault` is raised at its first byte, `rest` takes what comes after it."""

    def __init__(self, fault: Exception | None = None, rest: Body | None = None) -> None:
        self.response: Response | None = None
        self.pieces: list[bytes] = []
        self.ends = 0
        self.fault = fault
        self.rest = rest

    def begin(self, response: Response) -> Body:
        self.response = response
        return self

    def data(self, data: bytes) -> Body | None:
        self.pieces.append(data)
        if self.fault is not None:
            raise self.fault
        return self.rest

    def end(self) -> None:
        self.ends += 1

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces))


async def ask(made: Origin, answer: Answer, flow: Flow | None = None) -> None:
    async with asyncio.timeout(20):
        await (await made.send(GET, b"", answer, flow or Flow())).ended()


async def whole(made: Origin) -> tuple[int, bytes]:
    answer = Kept()
    await ask(made, answer)
    assert answer.response is not None
    assert answer.ends == 1
    return answer.response.status, answer.body


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        ([reply(b"hello")], b"hello"),
        ([reply(b"")], b""),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], b""),
        ([stream_head() + chunk(b"a") + chunk(b"b") + LAST_CHUNK], b"ab"),
        ([stream_head(), chunk(b"a")[:2], chunk(b"a")[2:], LAST_CHUNK[:3], LAST_CHUNK[3:]], b"a"),
        ([b"HTTP/1.1 200 OK\r\n\r\n", b"until ", b"the end", Do.CLOSE], b"until the end"),
        ([b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"], b"ok"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" + reply(b"late")], b"late"),
        ([b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", reply(b"late")], b"late"),
        ([stream_head() + chunk(b"a") + b"0\r\nx-trailer: 1\r\n\r\n"], b"a"),
    ],
)
async def test_every_framing(answer: list[bytes | Do], body: bytes) -> None:
    async with RawServer(answer) as server, origin(server.port) as made:
        status, got = await whole(made)
    assert status in (200, 204)
    assert got == body


@pytest.mark.parametrize("ending", ["timeout", "cancelled"])
async def test_a_connection_that_comes_as_the_wait_for_it_ends_is_closed(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the event loop makes of it."""
    loop, made = asyncio.get_running_loop(), asyncio.Event()
    connect = loop.create_connection

    async def late(*args: Any, **options: Any) -> Any:
        await connect(*args, **options)
        made.set()
        await asyncio.sleep(3600)

    monkeypatch.setattr(loop, "create_connection", late)
    async with RawServer([reply(b"hello")]) as server, origin(server.port, connect_timeout=0.05) as one:
        call = asyncio.create_task(ask(one, Kept()))
        await made.wait()
        if ending == "cancelled":
            call.cancel()
        with pytest.raises(ConnectError if ending == "timeout" else asyncio.CancelledError):
            await call
        await server.wait_lost()
        assert one.open == 0


@pytest.mark.parametrize("answer", [reply(b"hello"), stream_head() + chunk(b"hel") + chunk(b"lo") + LAST_CHUNK])
async def test_single_bytes(answer: bytes) -> None:
    async with RawServer([bytes([byte]) for byte in answer]) as server, origin(server.port) as made:
        assert await whole(made) == (200, b"hello")


@pytest.mark.parametrize(
    "answer",
    [
        [b"SSH-2.0-OpenSSH\r\n", Do.HANG],
        [Do.CLOSE],
        [Do.RESET],
        [b"HTTP/1.1 200 OK\r\ncontent-le", Do.CLOSE],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", Do.CLOSE],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", Do.RESET],
        [b"HTTP/1.1 200 OK\r\n\r\nabc", Do.RESET],
        [stream_head() + chunk(b"a"), Do.CLOSE],
        [stream_head() + b"zz\r\n", Do.HANG],
        [b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", Do.HANG],
    ],
)
async def test_no_whole_answer(answer: list[bytes | Do]) -> None:
    async with RawServer(answer) as server, origin(server.port) as made:
        with pytest.raises(TransportError) as raised:
            await whole(made)
    assert not isinstance(raised.value, ConnectError)


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
MUCH = b"x" * 4096
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "a header's value": (HEAD + b"x: ", MUCH),
    "a header's name": (HEAD, MUCH),
    "white space in a header": (HEAD + b"x: ", b" " * 4096),
    "headers": (HEAD, b"a: b\r\n" * 500),
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 100),
    "blank lines before the head": (b"", b"\r\n" * 2048),
    "a reason phrase": (b"HTTP/1.1 200 ", MUCH),
    "a chunk's extension": (CHUNKED + b"1\r\na\r\n5;x=", MUCH),
    "a trailer": (CHUNKED + b"0\r\nx: ", MUCH),
    "trailers": (CHUNKED + b"0\r\n", b"a: b\r\n" * 500),
}


@pytest.mark.parametrize("what", ENDLESS)
async def test_framing_without_end_is_bounded_while_it_comes(what: str) -> None:
    begin, more = ENDLESS[what]
    async with RawServer([begin, *[more] * 100, Do.HANG]) as server, origin(server.port) as made:
        with pytest.raises(TransportError, match=r"more than 64 KiB|not HTTP"):
            await whole(made)
        await server.wait_lost()
        assert made.open == 0


async def test_a_body_in_many_small_chunks_is_no_endless_framing() -> None:
    answer = stream_head() + (b"1;%b\r\na\r\n" % (b"e" * 20)) * 10_000 + LAST_CHUNK
    async with RawServer([answer]) as server, origin(server.port) as made:
        assert await whole(made) == (200, b"a" * 10_000)


@pytest.mark.parametrize("status", [b"99", b"000", b"099", b"101", b"600", b"999"])
async def test_a_status_that_is_none(status: bytes) -> None:
    answer = b"HTTP/1.1 %b Odd\r\ncontent-length: 2\r\n\r\nok" % status
    async with RawServer([answer, Do.HANG]) as server, origin(server.port) as made:
        with pytest.raises(TransportError, match=r"the status of the answer is \d+|not HTTP"):
            await whole(made)
        await server.wait_lost()


async def test_an_offer_to_upgrade_is_no_upgrade() -> None:
    """Apache sends it with any answer."""
    answer = reply(b"hello", headers="upgrade: h2,h2c\r\nconnection: upgrade\r\n")
    async with RawServer([answer]) as server, origin(server.port) as made:
        assert await whole(made) == (200, b"hello")


async def test_nobody_listens() -> None:
    async with origin(closed_port()) as made:
        with pytest.raises(ConnectError):
            await whole(made)


async def test_a_host_name_that_cannot_be_one() -> None:
    made = Origin("a..b", 1, security=None, connect_timeout=1.0, clock=time.monotonic)
    with pytest.raises(ConnectError, match="host name"):
        await whole(made)
    made.close()


async def test_header_names_are_lower_case_and_keep_their_order() -> None:
    sent = reply(b"", content_type="text/plain", headers="X-B: 1\r\nX-A: 2\r\nx-b: 3\r\n")
    answer = Kept()
    async with RawServer([sent + b"HTTP/1.1 200 OK\r\nx-c: 1\r\n", Do.HANG]) as server, origin(server.port) as made:
        await ask(made, answer)
    assert answer.response is not None
    assert answer.response.content_type == "text/plain"
    assert answer.response.headers[1:4] == [(b"x-b", b"1"), (b"x-a", b"2"), (b"x-b", b"3")]
    assert b"x-c" not in dict(answer.response.headers)


@pytest.mark.parametrize("fault", [ValueError("a bug"), TransportError("enough")])
async def test_what_takes_an_answer_fails_its_own_exchange_and_its_connection(fault: Exception) -> None:
    async with RawServer([stream_head() + chunk(b"a"), Do.HANG], [reply(b"two")]) as server, origin(server.port) as made:
        with pytest.raises(type(fault)) as raised:
            await ask(made, Kept(fault))
        assert raised.value is fault
        await server.wait_lost()
        assert await whole(made) == (200, b"two")


async def test_a_call_that_leaves_costs_its_connection() -> None:
    answer = Kept()
    async with RawServer([stream_head() + chunk(b"a"), Do.HANG]) as server, origin(server.port) as made:
        call = asyncio.create_task(ask(made, answer))
        await until(lambda: answer.pieces)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await server.wait_lost()


async def test_a_connection_that_still_sends_as_its_answer_ends_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lexora_router.engines.origin.KEEPALIVE_SECONDS", 60.0)
    left = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(b"no", status="413 Content Too Large"))
        await left.wait()
        writer.close()

    body = bytes(64 * 2**20)  # more than the buffers of the two ends of a connection
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server, origin(server.sockets[0].getsockname()[1]) as made:
        kept = Kept()
        connection = await made.send(
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body), body, kept, Flow()
        )
        await connection.ended()
        await until(lambda: not made.open)
        left.set()
    assert kept.response is not None
    assert (kept.response.status, kept.body, kept.ends) == (413, b"no", 1)


async def test_what_one_read_brings_is_handed_on_at_once_and_another_may_take_the_rest() -> None:
    rest = Kept()
    answer, gate = Kept(rest=rest), asyncio.Event()
    script: list[Step] = [stream_head() + chunk(b"a") + chunk(b"b") + chunk(b"c"), gate, chunk(b"d") + LAST_CHUNK]
    async with RawServer(script) as server, origin(server.port) as made:
        call = asyncio.create_task(ask(made, answer))
        await until(lambda: answer.pieces)
        gate.set()
        await call
    assert answer.pieces == [b"abc"]
    assert (rest.pieces, answer.ends, rest.ends) == ([b"d"], 0, 1)


@pytest.mark.parametrize("ending", [[Do.HANG], [Do.RESET], [Do.CLOSE], [LAST_CHUNK]], ids=["silence", "rst", "close", "end"])
async def test_an_end_may_be_waited_for_no_longer_than_so(ending: list[Step]) -> None:
    class Ending(Kept):
        def data(self, data: bytes) -> None:
            super().data(data)
            assert self.response is not None
            self.response.ends_within(0.05)

    answer = Ending()
    async with RawServer([stream_head() + chunk(b"a"), *ending]) as server, origin(server.port) as made:
        await ask(made, answer)
        assert answer.ends == 1
        assert len(made._idle) == (ending == [LAST_CHUNK])


async def test_an_end_is_waited_for_as_ever_when_more_comes() -> None:
    class Ending(Kept):
        def data(self, data: bytes) -> None:
            super().data(data)
            assert self.response is not None
            self.response.ends_within(0.05 if data == b"a" else None)

    answer, gate = Ending(), asyncio.Event()
    script: list[Step] = [stream_head() + chunk(b"a"), chunk(b"b"), gate, chunk(b"c") + LAST_CHUNK]
    async with RawServer(script) as server, origin(server.port) as made:
        asyncio.get_running_loop().call_later(0.1, gate.set)
        await ask(made, answer)
    assert (answer.body, answer.ends) == (b"abc", 1)


async def test_a_second_answer_to_one_request_is_neither_given_nor_kept() -> None:
    async with RawServer([reply(b"mine") + reply(b"evil"), Do.HANG], [reply(b"right")]) as server:
        async with origin(server.port) as made:
            assert await whole(made) == (200, b"mine")
            assert await whole(made) == (200, b"right")
        assert server.connections == 2


@pytest.mark.parametrize(
    "surplus", [b"HTTP/1.1 200 OK\r\ncontent-le", b"garbage", b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nev"]
)
async def test_what_follows_an_answer_is_never_taken_for_the_next_one(surplus: bytes) -> None:
    async with RawServer([reply(b"mine") + surplus, Do.HANG], [reply(b"right")]) as server, origin(server.port) as made:
        assert (await whole(made))[1] == b"mine"
        assert await whole(made) == (200, b"right")
        assert server.connections == 2


async def test_a_kept_connection_that_the_engine_closes_is_not_used() -> None:
    gate = asyncio.Event()
    async with RawServer([reply(b"one"), gate, Do.CLOSE], [reply(b"two")]) as server, origin(server.port) as made:
        await whole(made)
        gate.set()
        async with asyncio.timeout(20):
            while made._open:  # noqa: ASYNC110 - the connection tells nobody
                await asyncio.sleep(0.001)
        assert await whole(made) == (200, b"two")


async def test_idle_connections_are_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lexora_router.engines.origin.KEEPALIVE_SECONDS", 0.02)
    async with RawServer([reply(b"one")]) as server, origin(server.port) as made:
        await whole(made)
        await server.wait_lost()


async def test_a_slow_client_stops_the_engine_and_gets_everything() -> None:
    block = b"x" * 65_536
    script = [stream_head(), *[chunk(block)] * 200, LAST_CHUNK]
    async with RawServer(script) as server, origin(server.port) as made:
        answer, flow = Kept(), Flow()
        call = asyncio.create_task(ask(made, answer, flow))
        await until(lambda: answer.pieces)
        flow.pause()
        size = answer.size
        await asyncio.sleep(0.05)  # the sender runs into the kernel's buffers
        assert answer.size <= size + 65_536
        flow.resume()
        await call
        assert answer.size == 200 * len(block)
        assert await whole(made) == (200, block * 200)
        assert server.connections == 1


class FakeTransport:
    """A socket that is always open."""

    def __init__(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        pass


async def test_a_client_that_is_slow_at_the_end_does_not_stop_the_next_one() -> None:
    async with origin(1) as made:
        socket, connection, flow = FakeTransport(), http1.Connection(made), Flow()
        connection.connection_made(cast("asyncio.Transport", socket))
        flow.pause()
        connection.send(GET, b"", Kept(), flow)
        assert not socket.reading
        connection.data_received(reply(b"x"))
        await connection.ended()
        assert made._idle == [connection]
        assert socket.reading
        flow.pause()
        assert socket.reading, "the call has no connection any more"


async def test_what_is_held_comes_before_the_end_and_waits_for_the_client() -> None:
    """As a few bytes that unfold to many."""

    class Holding(Kept):
        held = 3

        def data(self, data: bytes) -> None:
            super().data(data)
            self.go_on()

        def go_on(self) -> None:
            assert self.response is not None
            self.held -= 1
            if self.held:
                self.response.hold(self.go_on)
            if self.held == 1:
                flow.pause()

    async with origin(1) as made:
        socket, connection, flow, answer = FakeTransport(), http1.Connection(made), Flow(), Holding()
        connection.connection_made(cast("asyncio.Transport", socket))
        connection.send(GET, b"", answer, flow)
        connection.data_received(reply(b"x"))
        await asyncio.sleep(0.01)
        assert (answer.held, answer.ends, socket.reading) == (1, 0, False)
        flow.resume()
        await connection.ended()
        assert (answer.held, answer.ends) == (0, 1)


IDLE_TOO_LONG = reply(b"", status="408 Request Timeout", headers="connection: close\r\n")


@pytest.mark.parametrize("ending", [[Do.CLOSE], [Do.RESET], [IDLE_TOO_LONG, Do.CLOSE]])
async def test_a_kept_connection_that_ends_as_it_is_used_is_stale_and_the_next_one_is_fresh(ending: list[Step]) -> None:
    """Connections that were idle meanwhile are dropped with it: they were kept for as long or longer."""
    async with RawServer([reply(b"one")], [reply(b"two")], ending, [reply(b"three")]) as server, origin(server.port) as made:
        await asyncio.gather(whole(made), whole(made))
        assert server.connections == 2
        with pytest.raises(StaleConnection):
            await whole(made)
        assert await whole(made) == (200, b"three")
        assert (len(server.requests), server.connections) == (4, 3)


async def test_a_request_that_the_engine_had_in_work_when_it_died_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "CROSSING_SECONDS", 0.01)
    gate = asyncio.Event()
    async with RawServer([reply(b"one")], [gate, Do.RESET], [reply(b"two")]) as server, origin(server.port) as made:
        assert await whole(made) == (200, b"one")
        asyncio.get_running_loop().call_later(0.05, gate.set)
        with pytest.raises(TransportError) as raised:
            await whole(made)
        assert raised.value.how == "lost"
        assert len(server.requests) == 2


async def test_the_engines_own_408_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "CROSSING_SECONDS", 0.01)
    gate = asyncio.Event()
    async with RawServer([IDLE_TOO_LONG], [reply(b"one")], [gate, IDLE_TOO_LONG]) as server, origin(server.port) as made:
        assert await whole(made) == (408, b""), "on a fresh connection"
        assert await whole(made) == (200, b"one")
        asyncio.get_running_loop().call_later(0.05, gate.set)
        assert await whole(made) == (408, b""), "after the request was in work"


async def test_a_fresh_connection_that_is_closed_without_an_answer_is_not_asked_again() -> None:
    async with RawServer([Do.CLOSE], [reply(b"late")]) as server, origin(server.port) as made:
        with pytest.raises(TransportError):
            await whole(made)
        assert len(server.requests) == 1


async def test_a_kept_connection_that_breaks_in_mid_answer_is_not_asked_again() -> None:
    async with RawServer([reply(b"one")], [b"HTTP/1.1 200", Do.CLOSE], [reply(b"two")]) as server, origin(server.port) as made:
        assert await whole(made) == (200, b"one")
        with pytest.raises(TransportError) as raised:
            await whole(made)
        assert raised.value.how == "lost"
        assert len(server.requests) == 2


async def test_an_engine_that_closes_a_kept_connection_late_has_had_its_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "CROSSING_SECONDS", 0.0)
    async with RawServer([reply(b"one")], [Do.CLOSE], [reply(b"two")]) as server, origin(server.port) as made:
        assert await whole(made) == (200, b"one")
        with pytest.raises(TransportError) as raised:
            await whole(made)
        assert raised.value.how == "lost"
        assert len(server.requests) == 2
