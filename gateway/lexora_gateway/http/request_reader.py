"""Requests as they come in on one connection: heads and bodies by RFC 9112, and a bound on all that has no end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from lexora_gateway.errors import Refused
from lexora_gateway.http.exchange import Connection, Exchange
from lexora_gateway.http.framing import check_head, split_target, without_upgrade
from lexora_gateway.http.known_head import KnownHead, known_head
from lexora_gateway.http.refusal import MAX_HEAD_BYTES, failure_of, head_too_large

if TYPE_CHECKING:
    import asyncio

    from lexora_gateway.asgi_types import HeaderList
    from lexora_gateway.errors import Failure
    from lexora_gateway.http.site import Site

# ": " and the line's end around each header.
_PER_HEADER = 4
# The names that nearly all requests have, once instead of once for each open call.
_LOWER = {
    written: name
    for name in (
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"authorization",
        b"connection",
        b"content-length",
        b"content-type",
        b"host",
        b"traceparent",
        b"transfer-encoding",
        b"user-agent",
        b"x-forwarded-for",
        b"x-request-id",
    )
    for written in (name, name.title())
}


class Reading(Connection, Protocol):
    """The connection that is read."""

    loop: asyncio.AbstractEventLoop

    def take(self, exchange: Exchange, /) -> None:
        """A request's head is here."""

    def head_is_late(self) -> None:
        """What was awaited with a time limit is not complete."""


class RequestReader:
    """Makes exchanges of what is read, and feeds them their bodies. The parser calls the on_* methods.

    `received` is the request that came last, until it is whole and answered. `target` and `pairs` are of the head that came
    last, whole or not; `in_head`: it is not. Offers of an upgrade are ignored.
    """

    __slots__ = (
        "_body_came",
        "_body_left",
        "_connection",
        "_first_read",
        "_head_end",
        "_heads",
        "_known",
        "_parser",
        "_read",
        "_site",
        "_unparsed",
        "in_head",
        "pairs",
        "received",
        "target",
    )

    def __init__(self, connection: Reading, site: Site) -> None:
        self._connection = connection
        self._site = site
        self._parser = HttpRequestParser(self)
        self.target = b""
        self.pairs: HeaderList = []
        self.in_head = False
        self.received: Exchange | None = None
        # Bytes received since the parser last got anywhere: a head began, a piece of a body came, a message ended.
        self._unparsed = 0
        self._read = 0
        # Length of the read that brought the head's first byte.
        self._first_read = 0
        # Bytes of the last request's body: those that came through the parser, and those that need none.
        self._body_came = 0
        self._body_left = 0
        self._heads = 0  # that were parsed, each with its body
        self._known: KnownHead | None = None
        # Runs only while the head under way did not come in one read.
        self._head_end: asyncio.TimerHandle | None = None

    def feed(self, data: bytes) -> Failure | None:
        """Parse what one read brought. Returns a failure when it is no request, or grows without end."""
        if self._body_left:
            data = self._feed_body(data)
            if not data:
                return None
        between = self.received is None and not self.in_head and not self._unparsed
        if between and self._known is not None and self._repeats(self._known, data):
            return None
        self._read = len(data)
        self._unparsed += self._read
        try:
            self._parse(data)
        except HttpParserError as error:
            return failure_of(error)
        if self._unparsed > MAX_HEAD_BYTES and not self._connection.transport.is_closing():
            return head_too_large()
        exchange = self.received
        if self.in_head or exchange is None or not exchange.is_open:
            self.expect_more()
        elif exchange.more_body:
            self._leave_out_parser(exchange)
        elif between:
            self._learn(data, exchange)
        return None

    def forget(self, exchange: Exchange) -> None:
        """An exchange is answered."""
        if exchange is self.received and not exchange.more_body:
            self.received = None

    def stop(self) -> None:
        """Nothing more comes."""
        self._body_left = 0
        self._stop_head_timer()
        self.received = None
        # The parser has this reader, and this reader has it.
        del self._parser

    # The time that a head may take.

    def expect_more(self) -> None:
        """A head, or what is left of a body that is not wanted, has a time limit from now on."""
        connection = self._connection
        if self._head_end is None and not connection.transport.is_closing():
            self._head_end = connection.loop.call_later(self._site.patience.head, self._on_head_timeout)

    def restart_head_timer(self) -> None:
        """What was sent ahead of a response may not have been read since: it has its whole time from now on."""
        if self._head_end is not None:
            self._stop_head_timer()
            self.expect_more()

    def _on_head_timeout(self) -> None:
        self._head_end = None
        self._connection.head_is_late()

    def _stop_head_timer(self) -> None:
        if self._head_end is not None:
            self._head_end.cancel()
            self._head_end = None

    # Heads that come again.

    def _learn(self, data: bytes, exchange: Exchange) -> None:
        """Keep the head of the second request on a connection. A client whose heads differ is not looked at any more."""
        self._heads += 1
        self._known = known_head(data, self.target, exchange) if self._heads == 2 else None

    def _repeats(self, known: KnownHead, data: bytes) -> bool:
        """Take a whole request with the head that came before."""
        found = known.split(data)
        if found is None:
            return False
        digits, body = found
        self._stop_head_timer()
        self.target = known.target
        self.pairs, headers = known.with_length(digits)
        self.received = exchange = Exchange(
            self._connection,
            method=b"POST",
            path=known.path,
            query=known.query,
            version="1.1",
            pairs=self.pairs,
            headers=headers,
            keep_alive=not self._site.connections.last_answers,
        )
        exchange.feed(body)
        exchange.feed_end()
        self._connection.take(exchange)
        return True

    # Bodies that are longer than a read, and of a certain length: the parser would only copy them.

    def _leave_out_parser(self, exchange: Exchange) -> None:
        """Take the rest of a body as it is, and begin anew behind it."""
        length = exchange.headers.get(b"content-length", b"")
        if exchange.keep_alive and length.isdigit() and b"transfer-encoding" not in exchange.headers:
            self._body_left = int(length) - self._body_came
            self._parser = HttpRequestParser(self)

    def _feed_body(self, data: bytes) -> bytes:
        """Take what belongs to the body; returns what follows."""
        exchange = self.received
        assert exchange is not None
        piece = data[: self._body_left]
        self._body_left -= len(piece)
        exchange.feed(piece)
        if exchange.is_ahead:
            self._connection.read_on()
        if not self._body_left:
            exchange.feed_end()
        elif not exchange.is_open:
            self.expect_more()
        return data[len(piece) :]

    # The parser, and what it calls.

    def _parse(self, data: bytes | memoryview) -> None:
        """Feed the parser. It stops behind a head that offers an upgrade; a new one goes on with the head without it."""
        while True:
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade as offer:
                data = memoryview(data)[offer.args[0] :]
            else:
                return
            old = self._parser
            head = without_upgrade(old.get_method(), self.target, old.get_http_version(), self.pairs)
            self._parser = HttpRequestParser(self)
            self._parser.feed_data(head)

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._unparsed = 0
        self._first_read = self._read
        self.in_head = True
        self.target = b""
        self.pairs = []

    def on_url(self, target: bytes) -> None:
        """The request's target, or a piece of it."""
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers are dropped, because nothing here reads them."""
        if self.in_head:
            self.pairs.append((_LOWER.get(name) or name.lower(), value))

    def on_headers_complete(self) -> None:
        """A whole head; it may have come in one large read."""
        self.in_head = False
        self._stop_head_timer()
        if self._first_read + self._unparsed > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES:
            raise Refused(head_too_large())
        parser, pairs, target = self._parser, self.pairs, self.target
        method, version, headers = parser.get_method(), parser.get_http_version(), dict(pairs)
        check_head(method, version, pairs, headers)
        if parser.should_upgrade():
            return
        # A target is mostly nothing but the path of a route.
        path, query = (target, b"") if target in self._site.routes else split_target(target)
        self._body_came = 0
        self.received = exchange = Exchange(
            self._connection,
            method=method,
            path=path,
            query=query,
            version=version,
            pairs=pairs,
            headers=headers,
            keep_alive=parser.should_keep_alive() and not self._site.connections.last_answers,
        )
        self._connection.take(exchange)

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._unparsed = 0
        self._body_came += len(body)
        exchange = self.received
        assert exchange is not None
        exchange.feed(body)
        if exchange.is_ahead:
            self._connection.read_on()

    def on_message_complete(self) -> None:
        """A request's last byte."""
        self._unparsed = 0
        if not self._parser.should_upgrade():
            assert self.received is not None
            self.received.feed_end()

    def _head_bytes(self) -> int:
        return len(self.target) + sum(len(name) + len(value) + _PER_HEADER for name, value in self.pairs)
