"""One request and its answer, on a connection that remembers what is written."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from lexora_gateway.client_side import ClientGone
from lexora_gateway.http.exchange import HIGH_WATER_BYTES, Exchange


class Connection:
    """The connection and its transport in one."""

    address = "10.0.0.1"

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.done: list[Exchange] = []
        self.transport: Any = self

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def writelines(self, pieces: Iterable[bytes]) -> None:
        self.written.append(b"".join(pieces))

    def first_lines(self, status: int) -> bytes:
        return b"HTTP/1.1 %d\r\n" % status

    def read_on(self) -> None:
        """Nothing is paused here."""

    def answered(self, exchange: Exchange) -> None:
        self.done.append(exchange)


def begun(
    method: bytes = b"POST", version: str = "1.1", *, keep_alive: bool = True, **headers: bytes
) -> tuple[Connection, Exchange]:
    connection = Connection()
    pairs = [(name.encode(), value) for name, value in headers.items()]
    exchange = Exchange(
        connection,
        method=method,
        path=b"/",
        query=b"",
        version=version,
        pairs=pairs,
        headers=dict(pairs),
        keep_alive=keep_alive,
    )
    return connection, exchange


X = (b"x", b"1")
CHUNKED = b"transfer-encoding: chunked\r\n"
CLOSE = b"connection: close\r\n"


def test_a_whole_answer_is_one_write() -> None:
    connection, exchange = begun()
    exchange.whole(201, [X], b"body")
    assert connection.written == [b"HTTP/1.1 201\r\nx: 1\r\ncontent-length: 4\r\n\r\nbody"]
    assert connection.done == [exchange]


def test_the_head_travels_with_the_first_piece_and_each_piece_is_a_chunk() -> None:
    connection, exchange = begun()
    exchange.start(200, [X])
    assert (connection.written, exchange.started) == ([], True)
    for piece in (b"", b"a" * 26, b"b"):
        exchange.write(piece)
    exchange.end()
    assert connection.written == [
        b"HTTP/1.1 200\r\nx: 1\r\n" + CHUNKED + b"\r\n1a\r\n" + b"a" * 26 + b"\r\n",
        b"1\r\nb\r\n",
        b"0\r\n\r\n",
    ]


@pytest.mark.parametrize(
    ("request_", "status", "given", "written"),
    [
        ((b"GET", "1.1", True), 204, [], b"HTTP/1.1 204\r\n\r\n"),
        ((b"HEAD", "1.1", True), 200, [X], b"HTTP/1.1 200\r\nx: 1\r\n\r\n"),
        ((b"GET", "1.1", True), 200, [], b"HTTP/1.1 200\r\n" + CHUNKED + b"\r\n0\r\n\r\n"),
        ((b"GET", "1.1", False), 304, [], b"HTTP/1.1 304\r\n" + CLOSE + b"\r\n"),
        ((b"GET", "1.1", True), 304, [(b"connection", b"Close")], b"HTTP/1.1 304\r\nconnection: Close\r\n\r\n"),
        ((b"GET", "1.0", True), 200, [], b"HTTP/1.1 200\r\n" + CLOSE + b"\r\n"),
    ],
)
def test_answers_without_a_body(
    request_: tuple[bytes, str, bool], status: int, given: list[tuple[bytes, bytes]], written: bytes
) -> None:
    method, version, keep_alive = request_
    connection, exchange = begun(method, version, keep_alive=keep_alive)
    exchange.start(status, given)
    exchange.end()
    assert b"".join(connection.written) == written
    assert exchange.keep_alive == (b"connection: " not in written.lower())


def test_large_pieces_are_framed_alike() -> None:
    large = b"x" * 70_000
    connection, exchange = begun()
    exchange.start(200, [])
    exchange.write(large)
    assert connection.written == [b"HTTP/1.1 200\r\n" + CHUNKED + b"\r\n11170\r\n" + large + b"\r\n"]
    connection, exchange = begun()
    exchange.whole(200, [], large)
    assert connection.written == [b"HTTP/1.1 200\r\ncontent-length: 70000\r\n\r\n" + large]


def test_a_stream_for_http_1_0_is_bare_and_ends_with_the_connection() -> None:
    connection, exchange = begun(version="1.0")
    exchange.start(200, [])
    exchange.write(b"ab")
    exchange.write(b"c")
    exchange.end()
    assert connection.written == [b"HTTP/1.1 200\r\n" + CLOSE + b"\r\nab", b"c"]


@pytest.mark.parametrize("end", [Exchange.end, Exchange.lose])
async def test_after_its_end_nothing_is_written_and_nothing_raises(end: Any) -> None:
    connection, exchange = begun()
    exchange.start(200, [])
    end(exchange)
    before = list(connection.written)
    exchange.write(b"late")
    exchange.end()
    exchange.start(500, [])
    exchange.whole(500, [], b"late")
    exchange.lose()
    exchange.feed(b"late")
    assert connection.written == before
    assert len(connection.done) == (end is Exchange.end)


def test_headers_of_another_origin_are_added() -> None:
    connection, exchange = begun()
    exchange.added = [(b"vary", b"Origin")]
    exchange.whole(200, [], b"")
    assert b"\r\nvary: Origin\r\n" in connection.written[0]


def test_a_body_that_came_with_its_head() -> None:
    _, exchange = begun()
    exchange.feed(b"ab")
    assert exchange.arrived() is None
    exchange.feed(b"c")
    exchange.feed_end()
    assert [exchange.arrived(), exchange.arrived()] == [b"abc", None]


async def test_a_body_is_read_in_pieces_and_then_the_leaving_is_waited_for() -> None:
    connection, exchange = begun(expect=b"100-Continue")
    reading = asyncio.create_task(exchange.read())
    await asyncio.sleep(0)
    assert connection.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    exchange.feed(b"x" * HIGH_WATER_BYTES)
    assert not exchange.is_ahead
    exchange.feed(b"y")
    assert exchange.is_ahead
    assert await reading == (b"x" * HIGH_WATER_BYTES + b"y", True)
    exchange.feed_end()
    assert await exchange.read() == (b"", False)
    both = [asyncio.create_task(exchange.read()) for _ in range(2)]
    await asyncio.sleep(0)
    exchange.lose()
    assert [type(each) for each in await asyncio.gather(*both, return_exceptions=True)] == [ClientGone] * 2
    assert len(connection.written) == 1


async def test_a_client_that_leaves_cancels_the_task_of_its_call() -> None:
    _, exchange = begun()
    exchange.task = asyncio.create_task(asyncio.sleep(60))
    exchange.lose()
    with pytest.raises(asyncio.CancelledError):
        await exchange.task
