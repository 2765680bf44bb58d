"""HTTP/1.1 to an engine: one connection, whose answers are handed on as they arrive.

Written for this gateway's hot path, on asyncio's protocols and llhttp's parser: what a read brings is handed on within
`data_received`, and the task that asked sleeps until the answer has ended or failed. Message framing is llhttp's (RFC 9112);
an answer without a length ends with its connection (section 6.3, rule 8).
"""

import asyncio
from collections.abc import Callable
from typing import NoReturn, Protocol, cast

import httptools

from lexora_contract.port import Flow
from lexora_router.engines.known_answer import KnownAnswer, pattern_of
from lexora_router.engines.response import Answer, Body, Response
from lexora_router.engines.transport_errors import InvalidAnswer, StaleConnection, TransportError
from lexora_router.timers import Timer, call_later

# Of a larger request head and body are not joined before they are written.
JOINED_BYTES = 256 * 1024
# What is no body, in a row: the head with all interim answers before it, a trailer, or the size of a chunk with its extensions.
MAX_FRAMING_BYTES = 64 * 1024
# What a header costs besides its bytes (as in RFC 7541, section 4.1), and what a piece of a body does.
OVERHEAD_BYTES = 32
# A kept connection that ends so soon after a request, and without a byte, was closing already (RFC 9112, section 9.5): servers
# close idle ones at any time, and answer what comes then with RST. One that ends later may have had the request in work.
CROSSING_SECONDS = 1.0
# What some proxies say as they close an idle connection. A request that crosses it may be repeated (RFC 9110, section 15.5.9).
REQUEST_TIMEOUT = 408
OK = 200


class Home(Protocol):
    """The pool that a connection belongs to."""

    def now(self) -> float:
        """The clock's reading, in seconds."""

    def keep(self, connection: "Connection") -> None:
        """Hold a connection for the next request."""

    def forget(self, connection: "Connection") -> None:
        """The connection is gone."""

    def drop_idle(self) -> None:
        """Close what is kept."""


class Connection(asyncio.Protocol):
    """One connection; serves one exchange at a time. The parser calls the on_* methods."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._pieces: list[bytes] = []  # of the body, from the read under way
        self.on_body = self._pieces.append
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._busy = False  # an exchange is under way, and its outcome is open
        self._pattern = b""  # of the last head that the parser read; what comes twice may come again
        self._known: KnownAnswer | None = None
        self._paused = False  # nothing is read
        # Of the exchange:
        self._done: asyncio.Future[None] | None = None
        self._answer: Answer | None = None
        self._response: Response | None = None  # once the head is complete
        self._body: Body | None = None
        self._flow: Flow | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_bytes = 0
        self._framing_bytes = 0  # since the last piece of a body
        self._refused = ""  # why the parser was stopped
        self._until_close = False
        self._keep_alive = False
        self.complete = False  # the answer has come to its end
        self._ending = False  # the body is over, although something is held
        self._surplus_from: int | None = None  # the first piece that belongs to a second answer
        self._by_length = False  # the next read may need no parser
        self._missing = 0  # bytes of a body whose head was known
        self._grace: Timer | None = None
        self._go_on: Callable[[], None] | None = None
        self._heard = False  # something came since the request was sent
        self._sent_at = 0.0
        self.idle_since = 0.0

    @property
    def usable(self) -> bool:
        """Whether a request can be sent on it."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, head: bytes, body: bytes, answer: Answer, flow: Flow) -> None:
        """Send a request; what comes goes to `answer`, as fast as `flow` lets it. Wait for the end with `ended`."""
        transport = self._transport
        assert transport is not None
        self._sent_at = self._home.now()
        self._done = self._loop.create_future()
        self._answer, self._flow = answer, flow
        self._headers, self._header_bytes, self._framing_bytes = [], 0, 0
        self._heard = self.complete = False
        self._by_length = self._known is not None
        self._busy = True
        if len(body) < JOINED_BYTES:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        flow.attach(self)

    async def ended(self) -> None:
        """Return when the answer has ended; raises TransportError, or what was raised by what took the answer."""
        done, flow = self._done, self._flow
        assert done is not None
        assert flow is not None
        try:
            await done
        except StaleConnection:
            self._home.drop_idle()  # here, so that none is kept before the request is sent again
            raise
        finally:
            del done  # an exception in it would be a cycle with this frame
            flow.detach()
            self._release()

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`."""
        self._paused = True
        if self.usable:
            assert self._transport is not None
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self._go_on is not None:
            self._loop.call_soon(self._continue)
            return
        self._paused = False
        if self.usable:
            assert self._transport is not None
            self._transport.resume_reading()

    def ends_within(self, seconds: float | None) -> None:
        """See Response."""
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        if seconds is not None and not self.complete:
            self._grace = call_later(seconds, self._end)

    def hold(self, go_on: Callable[[], None]) -> None:
        """See Response."""
        self._go_on = go_on
        self.pause_reading()
        self._loop.call_soon(self._continue)

    def close(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from asyncio's

    def data_received(self, data: bytes) -> None:
        """Hand on what one read brought."""
        if not self._busy:
            self.close()  # it answers no request
            return
        failure: Exception | None = None
        piece = self._known_piece(data) if self._by_length else None
        if piece is None:
            pieces = self._pieces
            self._framing_bytes += len(data)
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                failure = self._failure_of(error)
            if not self._heard:
                self._heard = True
                self._learn(data)
            if self._surplus_from is not None:
                del pieces[self._surplus_from :]
            if pieces:
                self._framing_bytes = 0
                piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                pieces.clear()
        try:
            body = self._body or self._begin()
            if body is not None:
                if piece:
                    following = body.data(piece)
                    if following is not None:
                        self._body = following
                if self.complete:
                    self._end()
        except Exception as error:  # what takes an answer can fail its own call only
            self._fail(error)
        if failure is not None or self._framing_bytes > MAX_FRAMING_BYTES:
            self._fail(failure or InvalidAnswer(_TOO_MUCH_FRAMING))
            self.close()

    def _known_piece(self, data: bytes) -> bytes | None:
        """What a read brings of the body of an answer whose head is known; None where that is not what it is."""
        if self._missing:
            if len(data) > self._missing:
                self._keep_alive = False  # what follows on this connection is no answer to this request
                data = data[: self._missing]
        else:
            assert self._known is not None
            split = self._known.split(data)
            if split is None:
                self._by_length = False
                return None
            self._missing, data = split
            self._response, self._keep_alive, self._heard = self._known.response, True, True
        self._missing -= len(data)
        self._by_length = self._missing > 0
        self.complete = not self._by_length
        return data

    def _failure_of(self, error: Exception) -> Exception:
        """What it means that the parser has raised this."""
        bug = error.__context__  # what a callback of this class raised: no fault of the engine, unless it was refused so
        if self._refused or not isinstance(error, httptools.HttpParserCallbackError) or not isinstance(bug, Exception):
            return InvalidAnswer(self._refused or f"the answer is not HTTP ({error})")
        return bug

    def _learn(self, data: bytes) -> None:
        """Look whether the head of an answer that goes well comes a second time."""
        response = self._response
        if response is None or response.status != OK or not self._keep_alive or self._surplus_from is not None:
            return
        pattern = pattern_of(data, sum(map(len, self._pieces)), response.headers)
        if pattern and pattern == self._pattern:
            self._known = KnownAnswer(self, pattern, response)
        self._pattern = pattern

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side is gone."""
        self._home.forget(self)
        del self._parser  # it has this connection, and this connection has it
        self._known = None  # so has this
        if not self._busy:
            return
        if self._until_close and exc is None:
            self.complete = True
        if self.complete or self._grace is not None:
            self._end()
        else:
            self._fail(TransportError("the connection was closed before the end of the answer"))

    # -- httptools; `on_body` keeps the pieces

    def on_message_begin(self) -> None:
        """A first byte."""
        if self._response is not None:
            self._surplus_from = len(self._pieces)  # what follows on this connection is no answer to this request

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._header_bytes += len(name) + len(value) + OVERHEAD_BYTES
        if self._header_bytes > MAX_FRAMING_BYTES:
            self._refuse(_TOO_MUCH_FRAMING)
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The end of a head, an interim one perhaps."""
        status = self._parser.get_status_code()
        if not 100 <= status <= 599 or status == 101:  # no upgrade was asked for
            self._refuse(f"the status of the answer is {status}")
        headers, self._headers = self._headers, []
        if status < 200 or self._response is not None:
            return
        names = dict(headers)
        self._until_close = status != 204 and b"content-length" not in names and b"transfer-encoding" not in names
        self._keep_alive = self._parser.should_keep_alive() and not self._until_close
        self._response = Response(self, status, headers)

    def on_message_complete(self) -> None:
        """The end of a body."""
        if self._response is not None:
            self.complete = True

    def _refuse(self, why: str) -> NoReturn:
        """Stop the parser."""
        self._refused = why
        raise ValueError(why)

    # -- the exchange

    def _begin(self) -> Body | None:
        """Hand the head on once it is complete."""
        response = self._response
        if response is None:
            return None
        if response.status == REQUEST_TIMEOUT and self._crossed():
            raise StaleConnection("a kept connection ended for its idle time (408) as the request was sent")
        assert self._answer is not None
        self._body = self._answer.begin(response)
        return self._body

    def _crossed(self) -> bool:
        """Whether a kept connection may have been closing already as the request was sent."""
        kept = self.idle_since > 0.0
        return kept and self._home.now() - self._sent_at <= CROSSING_SECONDS

    def _end(self) -> None:
        """The body has ended; what is held comes first."""
        if not self._busy or self._body is None:
            return
        if self._go_on is not None:
            self._ending = True
            return
        try:
            self._body.end()
        except Exception as error:  # what takes an answer can fail its own call only
            self._decide(error)
        else:
            self._decide(None)

    def _fail(self, error: Exception) -> None:
        """End the exchange, and the connection with it unless the answer has come whole."""
        if isinstance(error, TransportError) and not self._heard and self._crossed():
            error = StaleConnection("a kept connection was closed as the request was sent")
        self._decide(error)
        if not self.complete:
            self.close()

    def _decide(self, error: Exception | None) -> None:
        """The outcome, unless there is one; the task that waits wakes."""
        busy, done, self._busy = self._busy, self._done, False
        if not busy or done is None or done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def _continue(self) -> None:
        """Let what is held go on, unless the client takes nothing."""
        go_on, flow = self._go_on, self._flow
        if go_on is None or flow is None or flow.paused or not self._busy:
            return
        self._go_on = None
        try:
            go_on()
        except Exception as error:  # what takes an answer can fail its own call only
            self._fail(error)
            return
        if self._go_on is None:
            if not flow.paused:
                self.resume_reading()
            if self.complete or self._ending:
                self._end()

    def _release(self) -> None:
        """After an exchange: back to the pool, or closed at once, so that the engine notices."""
        decided, self._busy = not self._busy, False
        transport = self._transport
        assert transport is not None
        self._done = self._answer = self._response = self._body = self._flow = self._go_on = None
        if self._grace is not None:
            self.ends_within(None)
        self._missing, self._ending = 0, False
        goes_on = decided and self.complete and self._keep_alive and self._surplus_from is None and not transport.is_closing()
        # An engine may refuse a body that it has not read (RFC 9112, section 9.6).
        if goes_on and not transport.get_write_buffer_size():
            if self._paused:
                self.resume_reading()
            self._home.keep(self)
        else:
            self.close()


_TOO_MUCH_FRAMING = f"the head, a trailer or a chunk line of the answer has more than {MAX_FRAMING_BYTES >> 10} KiB"
