"""Requests that repeat a head, with the parser and without it: nothing may differ but the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lexora_gateway.errors import Failure
from lexora_gateway.http.request_reader import RequestReader
from lexora_gateway.http.site import Site

if TYPE_CHECKING:
    from lexora_gateway.http.exchange import Exchange

HEAD = b"POST /v1/chat/completions?a=1 HTTP/1.1\r\nHost: x\r\nX-Length: 5\r\nContent-Length: 5\r\nAccept: */*\r\n\r\n"


class Connection:
    """The connection and its loop and its transport in one; keeps what was read."""

    address = ""
    certificate = ()

    def __init__(self) -> None:
        self.loop: Any = self
        self.transport: Any = self
        self.taken: list[Exchange] = []

    def is_closing(self) -> bool:
        return True

    def take(self, exchange: Exchange) -> None:
        self.taken.append(exchange)

    def read_on(self) -> None:
        """Nothing is paused here."""


def request(body: bytes = b"hello", head: bytes = HEAD) -> bytes:
    return head.replace(b"Content-Length: 5", b"Content-Length: %d" % len(body)) + body


def read(*reads: bytes, parse: bool) -> tuple[list[tuple[Any, ...]], list[str | None], int]:
    """What comes of these reads, each answered before the next one; and how many requests went by the parser."""
    connection, failures = Connection(), []
    reader: Any = RequestReader(connection, Site(None))  # type: ignore[arg-type]  # as much of one as is asked for
    seen = []
    for each in reads:
        if parse:
            reader._known = None
        failure: Failure | None = reader.feed(each)
        failures.append(failure and failure.message)
        if failure is not None:
            break
        for exchange in connection.taken:
            seen.append(
                (
                    (exchange.method, exchange.path, exchange.query, exchange.version, exchange.keep_alive),
                    (exchange.pairs, exchange.headers, exchange.unread, exchange.more_body),
                    (reader.target, reader.in_head),
                )
            )
            reader.forget(exchange)
        connection.taken.clear()
    return seen, failures, reader._heads


@pytest.mark.parametrize("line", [b"", b"Connection: keep-alive\r\n", b"content-type: application/json\r\n"])
def test_the_third_request_and_all_after_it_need_no_parser(line: bytes) -> None:
    head = HEAD.replace(b"Accept", line + b"Accept")
    reads = [request(body, head) for body in (b"one", b"two", b"", b"five5" * 1000, b"six")]
    seen, failures, heads = read(*reads, parse=False)
    assert (seen, failures) == read(*reads, parse=True)[:2]
    assert [each[1][2] for each in seen] == [b"one", b"two", b"", b"five5" * 1000, b"six"]
    assert heads == 2


UNKNOWN = {
    "chunked": HEAD.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
    "a header twice": request(head=HEAD.replace(b"Accept", b"host2: x\r\nhost2: x\r\nAccept")),
    "the last one": request(head=HEAD.replace(b"Accept", b"Connection: close\r\nAccept")),
    "an offer": request(head=HEAD.replace(b"Accept", b"Upgrade: h2c\r\nConnection: upgrade\r\nAccept")),
    "another version": request(head=HEAD.replace(b"HTTP/1.1", b"HTTP/1.0")),
    "no space": request(head=HEAD.replace(b"Length: 5\r\nAccept", b"Length:5\r\nAccept")),
    "no body": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "long": request(head=HEAD.replace(b"*/*", b"y" * 5000)),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_a_head_that_says_more_is_parsed_each_time(case: str) -> None:
    reads = [UNKNOWN[case]] * 4
    seen, failures, heads = read(*reads, parse=False)
    assert (seen, failures) == read(*reads, parse=True)[:2]
    assert heads in (0, 1, 4)  # of those that were whole; a known one would not be counted


NEXT = {
    "shorter than it says": HEAD + b"hell",
    "longer than it says": HEAD + b"hello!",
    "with the next one behind it": request() + request(b"more"),
    "with a newline behind it": request() + b"\r\n",
    "with a newline before it": b"\r\n" + request(),
    "a sign": HEAD.replace(b"Content-Length: 5", b"Content-Length: +5") + b"hello",
    "blanks": HEAD.replace(b"Content-Length: 5", b"Content-Length: 5  ") + b"hello",
    "zeros": HEAD.replace(b"Content-Length: 5", b"Content-Length: 005") + b"hello",
    "no digits": HEAD.replace(b"Content-Length: 5", b"Content-Length: ") + b"hello",
    "other digits": HEAD.replace(b"Content-Length: 5", "Content-Length: ５".encode()) + b"hello",
    "many digits": HEAD.replace(b"Content-Length: 5", b"Content-Length: " + b"0" * 15 + b"5") + b"hello",
    "hexadecimal": HEAD.replace(b"Content-Length: 5", b"Content-Length: 0x5") + b"hello",
    "two lengths": HEAD.replace(b"Accept", b"Content-Length: 5\r\nAccept") + b"hello",
    "a coding as well": HEAD.replace(b"Length: 5\r\nAccept", b"Length: 5\r\nTransfer-Encoding: chunked\r\nAccept") + b"hello",
    "a bare newline": HEAD.replace(b"Length: 5\r\nAccept", b"Length: 5\nAccept") + b"hello",
    "a folded line": HEAD.replace(b"Length: 5\r\nAccept", b"Length: 5\r\n 5\r\nAccept") + b"hello",
    "a head inside its body": request(HEAD),
    "half a head": HEAD[:-10],
    "another head": request(head=HEAD.replace(b"a=1", b"a=2")),
    "no request": b"nonsense\r\n\r\n",
}


@pytest.mark.parametrize("case", NEXT)
def test_whatever_comes_behind_a_head_that_is_known_is_read_as_ever(case: str) -> None:
    reads = [request(), request(b"again"), NEXT[case]]
    for more in ([], [request()], [b"o"]):
        assert read(*reads, *more, parse=False)[:2] == read(*reads, *more, parse=True)[:2]
