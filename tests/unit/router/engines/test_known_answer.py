"""Answers that repeat a head, with the parser and without it: nothing may differ but the work."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from lexora_contract.port import Flow
from lexora_router.engines.answer_headers import end_to_end
from lexora_router.engines.http1 import Connection
from lexora_router.engines.response import Body, Response

HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 19:31:29 GMT\r\nServer: uvicorn\r\nX-Length: 5\r\nContent-Length: 5\r\n"
    b"content-type: application/json\r\n\r\n"
)
LATER = b"Mon, 23 Nov 2026 00:00:01 GMT"


class Engine:
    """The pool of a connection, and its transport; what takes an answer, and its body."""

    def __init__(self, connection: Callable[["Engine"], Connection]) -> None:
        self.closed = False
        self.kept = False
        self.seen: list[Any] = []
        self.connection = connection(self)
        self.connection.connection_made(self)  # type: ignore[arg-type]  # as much of one as is asked for

    def now(self) -> float:
        return 1.0

    def keep(self, connection: Connection) -> None:
        self.kept = True
        connection.idle_since = 1.0

    def forget(self, connection: Connection) -> None:
        """It is gone."""

    def drop_idle(self) -> None:
        """There is none."""

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: bytes) -> None:
        """A request."""

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.closed = True

    def begin(self, response: Response) -> Body:
        self.seen.append((response.status, response.content_type, end_to_end(response)))
        self.seen.append(bytearray())
        return self

    def data(self, data: bytes) -> None:
        self.seen[-1] += data

    def end(self) -> None:
        self.seen.append("end")


Read = tuple[list[Any], int]  # what came of the exchanges, and how many reads went to the parser


async def read(*exchanges: tuple[bytes, ...], parse: bool = False) -> Read:
    """What comes of these reads, some for each request; the connection ends after them if an answer has not."""
    engine, parsed = Engine(Connection), 0
    connection: Any = engine.connection
    real = connection._parser

    class Counting:
        """The parser, whose reads are counted."""

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def feed_data(self, data: bytes) -> None:
            nonlocal parsed
            parsed += 1
            real.feed_data(data)

    connection._parser = Counting()
    for reads in exchanges:
        if parse:
            connection._known = None
        engine.kept = False
        connection.send(b"", b"", engine, Flow())
        for each in reads:
            connection.data_received(each)
        if connection._busy:
            engine.closed = True
            connection.connection_lost(None)
        try:
            await connection.ended()
        except Exception as error:
            engine.seen.append((type(error).__name__, str(error)))
        engine.seen.append("kept" if engine.kept else "closed")
        if engine.closed:
            break
    return engine.seen, parsed


async def same(*exchanges: tuple[bytes, ...]) -> Read:
    """What comes of these reads with the parser, and how often it is asked without; all but this is compared."""
    (without, parsed), (by_parser, _) = await read(*exchanges), await read(*exchanges, parse=True)
    assert without == by_parser
    return without, parsed


def answer(body: bytes = b"hello", head: bytes = HEAD) -> bytes:
    return head.replace(b"Length: 5\r\nc", b"Length: %d\r\nc" % len(body)) + body


async def test_what_repeats_twice_needs_no_parser_with_any_length_and_date() -> None:
    again = [answer(b"x" * size, HEAD.replace(b"Sun, 22 Nov 2026 19:31:29 GMT", LATER)) for size in (1, 9, 12_345)]
    seen, parsed = await same(*[(each,) for each in (answer(), answer(), answer(), *again)])
    assert parsed == 2
    assert seen.count("kept") == 6
    assert seen[-3:] == [b"x" * 12_345, "end", "kept"]
    assert seen[0] == seen[-4] == (200, "application/json", (("x-length", "5"),))


async def test_a_body_that_comes_after_its_head_needs_no_parser_either() -> None:
    seen, parsed = await same(*[(HEAD, b"he", b"llo")] * 4)
    assert parsed == 2 * 3
    assert seen[-3:] == [b"hello", "end", "kept"]


@pytest.mark.parametrize("body", [b"", b"hello"])
async def test_an_answer_may_be_split_anywhere(body: bytes) -> None:
    whole = answer(body)
    for place in range(len(whole) + 1):
        reads = tuple(part for part in (whole[:place], whole[place:]) if part)
        seen, parsed = await same((answer(),), reads, reads, (answer(b"after"),), (answer(),))
        assert seen.count("kept") == 5
        assert parsed <= 6
    three = (whole[:-2], whole[-2:-1], whole[-1:])
    assert (await same((answer(),), (answer(),), three))[1] == (2 if body else 5)


OTHER = {
    "another status": HEAD.replace(b"200 OK", b"404 Not Found"),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD,
    "an interim answer with a length": HEAD.replace(b"200 OK", b"103 Early Hints") + HEAD,
    "close": HEAD.replace(b"X-Length: 5", b"Connection: close"),
    "an old version": HEAD.replace(b"1.1", b"1.0"),
    "another type": HEAD.replace(b"/json", b"/jsonl"),
    "two lengths": HEAD.replace(b"X-Length: 5", b"Content-Length: 5"),
    "two lengths that differ": HEAD.replace(b"X-Length: 5", b"Content-Length: 6"),
    "length and chunks": HEAD.replace(b"X-Length: 5", b"Transfer-Encoding: chunked"),
    "chunks": HEAD.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "no length": HEAD.replace(b"Content-Length: 5", b"Content-Size: 5"),
    "signs": HEAD.replace(b"t-Length: 5", b"t-Length: +5"),
    "hexadecimal": HEAD.replace(b"t-Length: 5", b"t-Length: 0x5"),
    "a list": HEAD.replace(b"t-Length: 5", b"t-Length: 5, 5"),
    "an underscore": HEAD.replace(b"t-Length: 5", b"t-Length: 0_5"),
    "digits of another script": HEAD.replace(b"t-Length: 5", b"t-Length: \xd9\xa5"),
    "leading zeros": HEAD.replace(b"t-Length: 5", b"t-Length: 0005"),
    "spaces": HEAD.replace(b"t-Length: 5", b"t-Length:   5  "),
    "too long": HEAD.replace(b"t-Length: 5", b"t-Length: 99999999999999999999"),
    "a length within a date": HEAD.replace(b"Sun, 22", b"Sun\r\ncontent-length: 7\r\nx: 22"),
    "no date": HEAD.replace(b"Sun, 22 Nov 2026 19:31:29 GMT", b"now"),
    "bare line feeds": HEAD.replace(b"\r\n", b"\n"),
    "a folded line": HEAD.replace(b"X-Length: 5", b"X-Length: 5\r\n 6"),
    "a folded length": HEAD.replace(b"t-Length: 5", b"t-Length: 5\r\n 6"),
    "a null byte": HEAD.replace(b"uvicorn", b"uvi\0corn"),
    "a line break first": b"\r\n" + HEAD,
    "no end": HEAD[:-2],
    "many bytes": HEAD.replace(b"X-Length: 5", b"X-Length: " + b"5" * 70_000),
    "no HTTP": b"hello " + HEAD,
    "a content coding": HEAD.replace(b"X-Length: 5", b"Content-Encoding: gzip"),
    "connection options": HEAD.replace(b"X-Length: 5", b"Connection: keep-alive, x-length"),
    "another case": HEAD.replace(b"Content-Length", b"CONTENT-LENGTH"),
}


@pytest.mark.parametrize("head", OTHER.values(), ids=OTHER)
async def test_another_head_is_read_as_ever(head: bytes) -> None:
    known = [(answer(),)] * 3
    other = (head + b"hello",)
    await same(*known, other, *known)
    await same(*[other] * 4, *known)
    for place in range(1, min(len(other[0]), 400), 9):
        await same(*known, (other[0][:place], other[0][place:]), *known)


SURPLUS = {
    "a second answer": answer(b"smuggled"),
    "bytes": b"xx",
    "half a head": HEAD[:20],
}


@pytest.mark.parametrize("surplus", SURPLUS.values(), ids=SURPLUS)
async def test_what_follows_an_answer_is_no_part_of_the_next_one(surplus: bytes) -> None:
    for reads in ((answer() + surplus,), (HEAD + b"hel", b"lo" + surplus), (HEAD, b"hello" + surplus)):
        seen, _ = await same((answer(),), (answer(),), reads, (answer(),))
        assert seen[-3:] == [b"hello", "end", "closed"]


async def test_an_answer_without_its_end_has_failed() -> None:
    for reads in ((HEAD,), (HEAD + b"hell",), (HEAD, b"h", b"ell")):
        seen, _ = await same((answer(),), (answer(),), reads)
        assert seen[-2:] == [("TransportError", "the connection was closed before the end of the answer"), "closed"]


async def test_heads_that_never_repeat_stay_with_the_parser() -> None:
    heads = [HEAD.replace(b"X-Length: 5", b"X-Request-Id: %d" % number) for number in range(5)]
    assert (await same(*[(head + b"hello",) for head in heads]))[1] == 5


async def test_a_connection_that_has_ended_waits_for_no_garbage_collector() -> None:
    engine = Engine(Connection)
    connection: Any = engine.connection
    for _ in range(3):
        connection.send(b"", b"", engine, Flow())
        connection.data_received(answer())
        await connection.ended()
    assert connection._known is not None
    connection.connection_lost(None)
    gone = weakref.ref(connection)
    gc.disable()
    try:
        del connection, engine.connection
        assert gone() is None
    finally:
        gc.enable()
