"""uvicorn's httptools protocol with framing by RFC 9112 and bounds on the request head and on slow clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import structlog
from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from lexora_contract.operations import dialect_of
from lexora_gateway.errors import Failure, Refused, in_dialect, invalid, plain, too_many_connections
from lexora_gateway.http.client_timeouts import PATIENCE, Patience, StallWatch
from lexora_gateway.http.connections import MAX_LINGERING, Connections
from lexora_gateway.http.framing import check_head, without_upgrade
from lexora_gateway.http10 import without_chunks
from lexora_gateway.request import request_id_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    from uvicorn.config import Config
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
    from uvicorn.server import ServerState

    from lexora_gateway.http.cors import Cors

_log = structlog.get_logger("lexora_gateway")

MAX_HEAD_BYTES = 64 * 1024
# Closing on a client that is still sending makes its kernel drop the answer, so what it sends is thrown away for a while.
LINGER_BYTES = 64 * 1024 * 1024
LINGER_SECONDS = 2.0
# Requests of a connection that wait for the answers before theirs; with more of them nothing is read any more.
MAX_PIPELINED = 8
# ": " and the line's end around each header.
_PER_HEADER = 4


class _LingeringTransport:
    """A connection as one response sees it: to close it means to close it gently."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses request heads over 64 KiB with 431 and closes; also bounds trailers and chunk extensions.

    A head that takes longer than `patience.head` is answered 408. A connection to which nothing could be written for
    `patience.write` is cut off, which the application sees as a disconnect. Offers of an upgrade are ignored. What cannot be
    parsed is refused in its turn, after the answers to what came before it.
    """

    patience = PATIENCE
    cors: Cors | None = None
    admitted = Connections()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.url = b""
        self.parser = HttpRequestParser(self)
        # The request that is being answered; uvicorn's `cycle` is the one that was parsed last.
        self._answering: RequestResponseCycle | None = None
        # Of what was parsed last, while the answers before it are under way.
        self._refusal: Failure | None = None
        # Bytes received since the parser last got anywhere: a head began, a piece of a body came, a message ended.
        self._unparsed = 0
        self._read = 0
        # Length of the read that brought the head's first byte.
        self._first_read = 0
        self._in_head = False
        self._linger_left = 0
        self._linger_end: asyncio.TimerHandle | None = None
        # Runs only while the head under way did not come in one read.
        self._head_end: asyncio.TimerHandle | None = None
        self._stall: StallWatch
        self._over = ""  # the bound that this connection met

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        """A new connection; its first byte is waited for as long as a next request's."""
        super().connection_made(transport)
        self._stall = StallWatch(self.loop, transport, self.patience.write)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        self._over = self.admitted.admit(self, self.client[0] if self.client else "")
        if self._over:
            self._turn_away(too_many_connections(self._over))

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of the connection."""
        self.admitted.forget(self)
        self.admitted.lingering -= bool(self._over)
        if self._linger_end is not None:
            self._linger_end.cancel()
        self._stop_head_timer()
        self._stall.stop()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        if self._answering is not None and not self._answering.response_complete:
            self._give_up(self._answering)

    def pause_writing(self) -> None:
        """The client does not take what is written to it."""
        super().pause_writing()
        self._stall.start()

    def resume_writing(self) -> None:
        """The client takes it again."""
        super().resume_writing()
        self._stall.resume()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; refuse what grows without end."""
        if self._linger_end is not None:
            self._throw_away(len(data))
            return
        if self._refusal is not None:
            # Nothing after it can be a request. Reading goes on, or nobody would see the client leave.
            return
        if self.timeout_keep_alive_task is not None:
            self.admitted.busy(self)
            self._unset_keepalive_if_required()
        self._read = len(data)
        self._unparsed += self._read
        try:
            self._parse(data)
        except HttpParserError as error:
            self._refuse(_failure_of(error))
            return
        if self._unparsed > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(_too_large())
        else:
            self._expect_more()

    def _parse(self, data: bytes) -> None:
        """Feed the parser. It stops behind a head that offers an upgrade; a new one goes on with the head without it."""
        parsed = 0
        while (offered := self._stopped_at(memoryview(data)[parsed:] if parsed else data)) is not None:
            parsed += offered
            old = self.parser
            head = without_upgrade(old.get_method(), self.url, old.get_http_version(), self.headers)
            self.parser = HttpRequestParser(self)
            self.parser.feed_data(head)

    def _stopped_at(self, data: bytes | memoryview) -> int | None:
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as offer:
            position: int = offer.args[0]
            return position
        return None

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._unparsed = 0
        self._first_read = self._read
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers are dropped, because nothing here reads them."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A whole head; it may have come in one large read."""
        self._in_head = False
        self._stop_head_timer()
        if self._first_read + self._unparsed > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES:
            raise Refused(_too_large())
        parser = self.parser
        check_head(parser.get_method(), parser.get_http_version(), self.headers)
        if not parser.should_upgrade():
            super().on_headers_complete()
            if 0 < len(self.pipeline) < MAX_PIPELINED:
                # uvicorn stops to read at the first one, and would not see the client leave.
                self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request's last byte."""
        self._unparsed = 0
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """A request's turn to be answered."""
        self._answering = cycle
        if self.cors is not None:
            app = self.cors.applied(app, cycle)
        super()._start_asgi_task(cycle, without_chunks(app, cycle) if cycle.scope["http_version"] == "1.0" else app)

    def on_response_complete(self) -> None:
        """A response's last byte."""
        if self._linger_end is None:
            is_last = not self.pipeline
            super().on_response_complete()
            if self.timeout_keep_alive_task is not None and not self._in_head:
                self.admitted.idle(self)
            if is_last and self._refusal is not None and not self.transport.is_closing():
                self._write_refusal(self._refusal)
                return
            if self._head_end is not None:
                # What was sent ahead of this response may not have been read since.
                self._stop_head_timer()
                self._expect_more()
            if self.transport.is_closing():
                self._stall.start()

    def timeout_keep_alive_handler(self) -> None:
        """No next request came."""
        self._close()

    def close_idle(self) -> None:
        """Make room for another connection; nothing is under way on this one."""
        self._close()

    def shutdown(self) -> None:
        """The server stops: an idle connection is closed, a response under way is the last one."""
        super().shutdown()
        if self.transport.is_closing():
            self._stall.start()

    def close_gently(self) -> None:
        """Close, but let a client that is still sending its request read the answer first."""
        if self.cycle is not None and not self.cycle.more_body:
            self._close()
        else:
            self._linger()

    def _close(self) -> None:
        self.transport.close()
        # What is still to be written keeps the connection.
        self._stall.start()

    def _linger(self) -> None:
        if self.transport.is_closing():
            return
        self._linger_left = LINGER_BYTES
        self._linger_end = self.loop.call_later(LINGER_SECONDS, self._close)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()

    def _throw_away(self, count: int) -> None:
        self._linger_left -= count
        if self._linger_left < 0:
            self._close()

    def _expect_more(self) -> None:
        """After a read: what has not come whole gets a time limit, or a gentle end in case it is refused."""
        cycle = self.cycle
        if self._in_head or cycle is None or cycle.response_complete:
            if self._head_end is None and not self.transport.is_closing():
                self._head_end = self.loop.call_later(self.patience.head, self._on_head_timeout)
        elif cycle.more_body and cycle.transport is self.transport:
            cycle.transport = cast("asyncio.Transport", _LingeringTransport(self.transport, self.close_gently))

    def _on_head_timeout(self) -> None:
        self._head_end = None
        if self._linger_end is not None:
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # A head that was sent ahead of the answer before it: its time starts with the end of that one.
            self._expect_more()
        elif self._in_head:
            failure = plain(408, f"The request head was not complete after {self.patience.head:g} seconds.")
            self._refuse(failure)
        else:
            # Newlines between requests, or the rest of a body that nobody wants.
            self._close()

    def _stop_head_timer(self) -> None:
        if self._head_end is not None:
            self._head_end.cancel()
            self._head_end = None

    def _refuse(self, failure: Failure) -> None:
        """Answer what came last with a failure and close, as soon as all that came before it is answered."""
        cycle = self.cycle
        if cycle is None or (cycle.response_complete and not cycle.more_body):
            self._write_refusal(failure)
        elif not cycle.more_body:
            self._refusal = failure
        elif cycle is not self._answering:
            self.pipeline.popleft()
            self.cycle = cast("RequestResponseCycle", self._answering)
            self._refusal = failure
        elif cycle.response_started:
            # A second status would be taken for a part of its answer, or for the next one.
            self.transport.close()
        else:
            self._give_up(cycle)
            self._write_refusal(failure)

    def _give_up(self, cycle: RequestResponseCycle) -> None:
        """The application sees a disconnect, and nothing that it sends is written."""
        cycle.disconnected = True
        cycle.message_event.set()

    def _turn_away(self, failure: Failure) -> None:
        """Refuse a connection before its first request."""
        self.admitted.lingering += 1
        if (times := self.admitted.unlogged(self.loop.time())) > 0:
            _log.warning("connections_refused", bound=self._over, client=self.client[0] if self.client else None, times=times)
        if self.admitted.lingering > MAX_LINGERING:
            self.transport.abort()
        else:
            self._write_failure(failure, request_id_of({}), {})

    def _write_refusal(self, failure: Failure) -> None:
        received = dict(self.headers or ())
        request_id = request_id_of(received)
        path = self.url.partition(b"?")[0].decode("latin-1")
        failure = in_dialect(dialect_of(path), failure, request_id)
        client = self.client[0] if self.client else None
        _log.info("request_refused", status=failure.status, reason=failure.message, client=client, request_id=request_id)
        self._write_failure(failure, request_id, received)

    def _write_failure(self, failure: Failure, request_id: str, received: dict[bytes, bytes]) -> None:
        body = failure.body()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", failure.content_type),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
            *failure.headers,
            *(self.cors.allowed(received) if self.cors is not None else ()),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[failure.status] + lines + b"\r\n" + body)
        self._linger()

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + _PER_HEADER for name, value in self.headers)


def _too_large() -> Failure:
    return plain(431, f"The request's head, trailers or chunk extensions are larger than {MAX_HEAD_BYTES} bytes.")


_PREFACE_SEEN = "Pause on PRI/Upgrade"  # the parser's words for the first line of HTTP/2


def _failure_of(error: HttpParserError) -> Failure:
    """What a callback refused, else 400 with what the parser says."""
    if not isinstance(error, HttpParserCallbackError):
        if str(error) == _PREFACE_SEEN:
            return plain(505, "HTTP/2 is not spoken here; use HTTP/1.1. gRPC has a port of its own.")
        return invalid(f"Invalid HTTP request received: {error}.")
    cause = error.__context__
    return cause.failure if isinstance(cause, Refused) else invalid("Invalid HTTP request received.")


def protocol_with(patience: Patience, cors: Cors | None, connections: Connections) -> type[BoundedHttpProtocol]:
    """The protocol of one server: with its time limits, its connections, and with CORS where that is wanted."""
    own = {"patience": patience, "cors": cors, "admitted": connections}
    return type("BoundedHttpProtocol", (BoundedHttpProtocol,), own)
