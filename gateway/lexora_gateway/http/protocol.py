"""An HTTP/1.1 connection of the facade: framing by RFC 9112, requests in their order, bounds on heads and on slow clients."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from lexora_contract.operations import dialect_of
from lexora_gateway.errors import Failure, Refused, in_dialect, plain, too_many_connections
from lexora_gateway.http.asgi import AsgiCall
from lexora_gateway.http.client_timeouts import StallWatch
from lexora_gateway.http.connections import MAX_LINGERING
from lexora_gateway.http.exchange import Exchange
from lexora_gateway.http.framing import check_head, split_target, without_upgrade
from lexora_gateway.http.refusal import MAX_HEAD_BYTES, failure_of, head_too_large, rest_of_answer
from lexora_gateway.request import request_id_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from uvicorn.server import ServerState

    from lexora_gateway.asgi_types import HeaderList, Headers
    from lexora_gateway.http.site import Site

_log = structlog.get_logger("lexora_gateway")

# Closing on a client that is still sending makes its kernel drop the answer, so what it sends is thrown away for a while.
LINGER_BYTES = 64 * 1024 * 1024
LINGER_SECONDS = 2.0
# Requests of a connection that wait for the answers before theirs; with more of them nothing is read any more.
MAX_PIPELINED = 8
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


class HttpProtocol(asyncio.Protocol):
    """One connection. A route of the site is served by itself, below ASGI; all else by the site's ASGI application.

    Request heads over 64 KiB are refused with 431, as are trailers and chunk extensions. A head that takes longer than
    `patience.head` is answered 408. A connection to which nothing could be written for `patience.write` is cut off, which
    its call sees as a client that left. Offers of an upgrade are ignored. What cannot be parsed is refused in its turn, after
    the answers to what came before it.

    The server asks for `shutdown`, has every connection in `state.connections` and every task in `state.tasks`.
    """

    __slots__ = (
        "_answering",
        "_first_read",
        "_head_end",
        "_in_head",
        "_is_idle",
        "_linger_end",
        "_linger_left",
        "_over",
        "_pairs",
        "_parser",
        "_pipeline",
        "_read",
        "_reads",
        "_received",
        "_refusal",
        "_site",
        "_stall",
        "_state",
        "_takes",
        "_target",
        "_unparsed",
        "address",
        "loop",
        "transport",
    )

    def __init__(self, site: Site, state: ServerState) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.address = ""
        self._site = site
        self._state = state
        self._parser = HttpRequestParser(self)
        # Of the head that came last.
        self._target = b""
        self._pairs: HeaderList = []
        # The request that is being answered, those that wait for it, and the one that came last.
        self._answering: Exchange | None = None
        self._pipeline: list[Exchange] = []
        self._received: Exchange | None = None
        # Of what was parsed last, while the answers before it are under way.
        self._refusal: Failure | None = None
        # Bytes received since the parser last got anywhere: a head began, a piece of a body came, a message ended.
        self._unparsed = 0
        self._read = 0
        # Length of the read that brought the head's first byte.
        self._first_read = 0
        self._in_head = False
        self._is_idle = True
        self._reads = True
        self._takes = True  # what is written to it
        self._linger_left = 0
        self._linger_end: asyncio.TimerHandle | None = None
        # Runs only while the head under way did not come in one read.
        self._head_end: asyncio.TimerHandle | None = None
        self._stall: StallWatch | None = None  # made when the client first falls behind
        self._over = ""  # the bound that this connection met

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a server's are transports
        """A new connection; its first byte is waited for as long as a next request's."""
        self.transport = transport
        self._state.connections.add(self)  # type: ignore[arg-type]  # a set of uvicorn's own
        peer = _inet(transport, "peername")
        self.address = peer[0] if peer else ""
        self._over = self._site.connections.admit(self, self.address)
        self._site.watch_idle(self.loop)
        if self._over:
            self._turn_away(too_many_connections(self._over))

    def connection_lost(self, _: Exception | None) -> None:
        """The end of the connection."""
        self._state.connections.discard(self)
        self._site.connections.forget(self)
        self._site.connections.lingering -= bool(self._over)
        if self._linger_end is not None:
            self._linger_end.cancel()
        self._stop_head_timer()
        if self._stall is not None:
            self._stall.stop()
        if self._answering is not None:
            self._answering.lose()
        self._pipeline.clear()
        # They have this protocol, and this protocol has them.
        self._answering = self._received = None
        del self._parser

    def pause_writing(self) -> None:
        """The client does not take what is written to it."""
        self._takes = False
        if self._answering is not None:
            self._answering.flow.pause()
        self._watch_stall()

    def resume_writing(self) -> None:
        """The client takes it again."""
        self._takes = True
        if self._stall is not None:
            self._stall.resume()
        if self._answering is not None:
            self._answering.flow.resume()
        elif (self._pipeline or self._refusal is not None) and self._linger_end is None:
            self._next()

    def close_idle(self) -> None:
        """No next request came in time, or room is made for another connection; nothing is under way on this one."""
        self._close()

    def shutdown(self) -> None:
        """The server stops: an idle connection is closed, a response under way is the last one."""
        last = self._pipeline[-1] if self._pipeline else self._answering
        if last is None:
            self._close()
        else:
            last.keep_alive = False

    def first_lines(self, status: int) -> bytes:
        """The first lines of a response."""
        return self._site.first_lines(status, self._state.default_headers)

    def read_on(self) -> None:
        """Read as long as there is room for what comes: for requests, and for the rest of the last one's body."""
        ahead = self._received is not None and self._received.is_ahead
        reads = self._linger_end is not None or not (ahead or len(self._pipeline) >= MAX_PIPELINED)
        if reads is not self._reads and not self.transport.is_closing():
            self._reads = reads
            if reads:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    # What is read.

    def data_received(self, data: bytes) -> None:
        """Feed the parser; refuse what grows without end."""
        if self._linger_end is not None:
            self._throw_away(len(data))
            return
        if self._refusal is not None:
            # Nothing after it can be a request. Reading goes on, or the client's leaving would not be seen.
            return
        if self._is_idle:
            self._is_idle = False
            self._site.connections.busy(self)
        self._read = len(data)
        self._unparsed += self._read
        try:
            self._parse(data)
        except HttpParserError as error:
            self._refuse(failure_of(error))
            return
        if self._unparsed > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(head_too_large())
        elif self._in_head or self._received is None or not self._received.is_open:
            self._expect_more()

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
            head = without_upgrade(old.get_method(), self._target, old.get_http_version(), self._pairs)
            self._parser = HttpRequestParser(self)
            self._parser.feed_data(head)

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._unparsed = 0
        self._first_read = self._read
        self._in_head = True
        self._target = b""
        self._pairs = []

    def on_url(self, target: bytes) -> None:
        """The request's target, or a piece of it."""
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers are dropped, because nothing here reads them."""
        if self._in_head:
            self._pairs.append((_LOWER.get(name) or name.lower(), value))

    def on_headers_complete(self) -> None:
        """A whole head; it may have come in one large read."""
        self._in_head = False
        self._stop_head_timer()
        if self._first_read + self._unparsed > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES:
            raise Refused(head_too_large())
        parser, pairs = self._parser, self._pairs
        method, version, headers = parser.get_method(), parser.get_http_version(), dict(pairs)
        check_head(method, version, pairs, headers)
        if parser.should_upgrade():
            return
        # A target is mostly nothing but the path of a route.
        path, query = (self._target, b"") if self._target in self._site.routes else split_target(self._target)
        self._received = exchange = Exchange(
            self,
            method=method,
            path=path,
            query=query,
            version=version,
            pairs=pairs,
            headers=headers,
            keep_alive=parser.should_keep_alive(),
        )
        if self._answering is None and self._takes:
            self._start(exchange)
        else:
            self._pipeline.append(exchange)
            self.read_on()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._unparsed = 0
        exchange = self._received
        assert exchange is not None
        exchange.feed(body)
        if exchange.is_ahead:
            self.read_on()

    def on_message_complete(self) -> None:
        """A request's last byte."""
        self._unparsed = 0
        if not self._parser.should_upgrade():
            assert self._received is not None
            self._received.feed_end()

    # What is answered.

    def _start(self, exchange: Exchange) -> None:
        """A request's turn to be answered."""
        self._answering = exchange
        if not self._takes:
            exchange.flow.pause()
        cors = self._site.cors
        if cors is not None:
            if cors.is_preflight(exchange.method, exchange.headers):
                exchange.task = self._task(exchange, cors.preflight, exchange)
                return
            exchange.added = cors.allowed(exchange.headers)
        route = self._site.routes.get(exchange.path) if exchange.method == b"POST" else None
        if route is not None:
            exchange.task = self._task(exchange, route.handle, exchange)
        else:
            call = AsgiCall(exchange, _inet(self.transport, "sockname"), _inet(self.transport, "peername"))
            self._task(exchange, call.run, self._site.app)

    def _task(self, exchange: Exchange, serve: Callable[[Any], Awaitable[None]], given: Any) -> asyncio.Task[None]:
        return self.loop.create_task(self._serve(exchange, serve, given))

    async def _serve(self, exchange: Exchange, serve: Callable[[Any], Awaitable[None]], given: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._state.tasks.add(task)
        try:
            await serve(given)
        finally:
            self._state.tasks.discard(task)
            if exchange.is_open:
                # Cancelled by the server, or its answer broke off: the client must not take it for a whole one.
                exchange.lose()
                self.transport.abort()

    def answered(self, exchange: Exchange) -> None:
        """The last byte of an answer is written."""
        self._state.total_requests += 1
        self._answering = None
        if exchange is self._received and not exchange.more_body:
            self._received = None
        if self._linger_end is not None or self.transport.is_closing():
            return
        if not exchange.keep_alive:
            self._pipeline.clear()
            if exchange.more_body:
                # It may still be sending its request, and should read the answer first.
                self._linger()
            else:
                self._close()
            return
        self._next()
        if self._head_end is not None:
            # What was sent ahead of this response may not have been read since.
            self._stop_head_timer()
            self._expect_more()

    def _next(self) -> None:
        """Answer what is next in turn. A client that takes no answers gets no more of them: they would only fill the memory."""
        if self._pipeline:
            if self._takes:
                self._start(self._pipeline.pop(0))
        elif self._refusal is not None:
            self._write_refusal(self._refusal)
            return
        elif not self._in_head:
            self._is_idle = True
            self._site.connections.idle(self)
        self.read_on()

    # Slow clients, and the end of a connection.

    def _close(self) -> None:
        self.transport.close()
        # What is still to be written keeps the connection.
        self._watch_stall()

    def _watch_stall(self) -> None:
        if self._stall is None:
            self._stall = StallWatch(self.loop, self.transport, self._site.patience.write)
        self._stall.start()

    def _linger(self) -> None:
        if self.transport.is_closing():
            return
        self._linger_left = LINGER_BYTES
        self._linger_end = self.loop.call_later(LINGER_SECONDS, self._close)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.read_on()

    def _throw_away(self, count: int) -> None:
        self._linger_left -= count
        if self._linger_left < 0:
            self._close()

    def _expect_more(self) -> None:
        """A head, or what is left of a body that is not wanted, has a time limit from now on."""
        if self._head_end is None and not self.transport.is_closing():
            self._head_end = self.loop.call_later(self._site.patience.head, self._on_head_timeout)

    def _on_head_timeout(self) -> None:
        self._head_end = None
        if self._linger_end is not None:
            return
        if self._answering is not None or self._pipeline:
            # A head that was sent ahead of the answer before it: its time starts with the end of that one.
            self._expect_more()
        elif self._in_head:
            self._refuse(plain(408, f"The request head was not complete after {self._site.patience.head:g} seconds."))
        else:
            # Newlines between requests, or the rest of a body that is not wanted.
            self._close()

    def _stop_head_timer(self) -> None:
        if self._head_end is not None:
            self._head_end.cancel()
            self._head_end = None

    # Refusals of what is no request.

    def _refuse(self, failure: Failure) -> None:
        """Answer what came last with a failure and close, as soon as all that came before it is answered."""
        exchange = self._received
        if exchange is None or not (exchange.is_open or exchange.more_body):
            self._write_refusal(failure)
        elif not exchange.more_body:
            self._refusal = failure
        elif exchange is not self._answering and exchange.is_open:
            self._pipeline.pop()
            self._received = self._answering
            self._refusal = failure
        elif exchange.started:
            # A second status would be taken for a part of its answer, or for the next one.
            self.transport.close()
        else:
            exchange.lose()
            self._write_refusal(failure)

    def _turn_away(self, failure: Failure) -> None:
        """Refuse a connection before its first request."""
        connections = self._site.connections
        connections.lingering += 1
        if (times := connections.unlogged(self.loop.time())) > 0:
            _log.warning("connections_refused", bound=self._over, client=self.address or None, times=times)
        if connections.lingering > MAX_LINGERING:
            self.transport.abort()
        else:
            self._write_failure(failure, request_id_of({}), {})

    def _write_refusal(self, failure: Failure) -> None:
        received = dict(self._pairs)
        request_id = request_id_of(received)
        path = self._target.partition(b"?")[0].decode("latin-1")
        failure = in_dialect(dialect_of(path), failure, request_id)
        client = self.address or None
        _log.info("request_refused", status=failure.status, reason=failure.message, client=client, request_id=request_id)
        self._write_failure(failure, request_id, received)

    def _write_failure(self, failure: Failure, request_id: str, received: Headers) -> None:
        added = self._site.cors.allowed(received) if self._site.cors is not None else []
        self.transport.write(self.first_lines(failure.status) + rest_of_answer(failure, request_id, added))
        self._linger()

    def _head_bytes(self) -> int:
        return len(self._target) + sum(len(name) + len(value) + _PER_HEADER for name, value in self._pairs)


def _inet(transport: asyncio.Transport, name: str) -> tuple[str, int] | None:
    """Host and port of an end of a connection, if it has them."""
    found = transport.get_extra_info(name)
    return (found[0], found[1]) if isinstance(found, tuple) else None
