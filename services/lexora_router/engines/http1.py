"""HTTP/1.1 to one origin: a pool of kept connections, and answers that are read as they arrive.

Written for this gateway's hot path, on asyncio's protocols and llhttp's parser: a relayed chunk costs one parser call and one
wake-up. Message framing is llhttp's (RFC 9112); an answer without a length ends with its connection (section 6.3, rule 8).
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import NoReturn, cast

import httptools

from lexora_router.engines.dial import Dialer
from lexora_router.engines.local_shortage import LOCAL, shortages

# Servers in Python (uvicorn, vLLM) close idle connections after 5 s; ours go first, or a request meets a closing socket.
KEEPALIVE_SECONDS = 4.0
# A reader that is this far behind stops the socket until it has caught up.
HIGH_WATER_BYTES = 256 * 1024
# What is no body, in a row: the head with all interim answers before it, a trailer, or the size of a chunk with its extensions.
MAX_FRAMING_BYTES = 64 * 1024
# What a header costs besides its bytes (as in RFC 7541, section 4.1), and what a piece of a body does.
OVERHEAD_BYTES = 32
# A kept connection that ends so soon after a request, and without a byte, was closing already (RFC 9112, section 9.5): servers
# close idle ones at any time, and answer what comes then with RST. One that ends later may have had the request in work.
CROSSING_SECONDS = 1.0
# What some proxies say as they close an idle connection. A request that crosses it may be repeated (RFC 9110, section 15.5.9).
REQUEST_TIMEOUT = 408


class TransportError(Exception):
    """No answer, or no whole one, could be had; the message says why, without the address."""

    how = "lost"  # as in errors.UpstreamUnreachable


class ConnectError(TransportError):
    """No connection could be made: nothing was sent."""

    how = "refused"


class ConnectTimeout(ConnectError):
    """No connection was made within `connect_timeout`."""

    how = "timeout"


class InvalidAnswer(TransportError):
    """What came is no HTTP, or has no end."""


class LocalShortage(TransportError):
    """This machine lacks what a connection takes; the other side was not asked."""


class StaleConnection(TransportError):
    """A kept connection was closed as the request was on its way: the engine has read nothing of it, or not all of it."""

    how = "stale"


class Response:
    """An answer whose head has arrived. `headers` have lower-case names. `close` it in any case, read to the end or not."""

    __slots__ = ("_chunks", "_complete", "_connection", "_error", "_size", "_waiter", "headers", "status")

    def __init__(self, connection: "_Connection") -> None:
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._complete = False
        self._error: TransportError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []

    @property
    def content_type(self) -> str:
        """The content-type header, empty when there is none."""
        for name, value in self.headers:
            if name == b"content-type":
                return value.decode("latin-1")
        return ""

    async def read(self) -> bytes:
        """All bytes that have arrived since the last read, at least one; empty at the end. Raises TransportError."""
        while not self._chunks and not self._complete and self._error is None:
            await self.wait()  # what arrived may be framing only
        if self._chunks:
            data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks.clear()
            if self._size > HIGH_WATER_BYTES:
                self._connection.resume()
            self._size = 0
            return data
        if self._error is not None:
            raise self._error
        return b""

    def close(self) -> None:
        """Keep the connection when the answer was read to its end, else drop it, so that the engine notices."""
        self._connection.release(keep=self._complete)

    # -- filled by the connection

    async def wait(self) -> None:
        """Return when something new has arrived."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """Let the reader look."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def started(self) -> bool:
        """Whether the head is complete."""
        return self.status != 0

    @property
    def error(self) -> TransportError | None:
        """What ended the answer before its time."""
        return self._error

    def add(self, body: bytes) -> bool:
        """Take a piece of the body; True when the reader has fallen behind."""
        if self._complete:
            return False
        self._chunks.append(body)
        self._size += len(body) + OVERHEAD_BYTES
        return self._size > HIGH_WATER_BYTES

    def complete(self) -> None:
        """The body has ended as it should."""
        self._complete = True

    def fail(self, error: TransportError) -> None:
        """The connection has ended first."""
        if not self._complete and self._error is None:
            self._error = error
        self.wake()


class _Connection(asyncio.Protocol):
    """One connection; serves one exchange at a time. The parser calls the on_* methods."""

    def __init__(self, origin: "Origin") -> None:
        self._origin = origin
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_bytes = 0
        self._framing_bytes = 0  # since the last piece of a body
        self._refused = ""  # why the parser was stopped
        self._until_close = False
        self._keep_alive = False
        self._surplus = False
        self.heard = False  # something came since the last request
        self.idle_since = 0.0

    @property
    def usable(self) -> bool:
        """Whether a request can be sent on it."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, head: bytes, body: bytes) -> Response:
        """Begin an exchange; the response fills as the answer arrives."""
        assert self._transport is not None
        self._headers, self._header_bytes, self._framing_bytes = [], 0, 0
        self._keep_alive = self._until_close = self.heard = False
        self._response = response = Response(self)
        if len(body) < HIGH_WATER_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return response

    def resume(self) -> None:
        """Read from the socket again."""
        if self.usable:
            assert self._transport is not None
            self._transport.resume_reading()

    def release(self, *, keep: bool) -> None:
        """End the exchange; back to the pool, or closed at once."""
        if self._response is None:
            return
        self._response = None
        if keep and self._keep_alive and not self._surplus and self.usable:
            self.resume()
            self._origin.keep(self)
        elif self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from asyncio's

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:
            self.close()  # nobody asked
            return
        self.heard = True
        self._framing_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            response.fail(InvalidAnswer(self._refused or f"the answer is not HTTP ({error})"))
            self.close()
            return
        if self._framing_bytes > MAX_FRAMING_BYTES:
            response.fail(InvalidAnswer(_TOO_MUCH_FRAMING))
            self.close()
            return
        response.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._origin.forget(self)
        response = self._response
        if response is None:
            return
        if self._until_close and exc is None:
            response.complete()
        response.fail(TransportError("the connection was closed before the end of the answer"))

    # -- httptools

    def on_message_begin(self) -> None:
        if self._response is not None and self._response.started:
            self._surplus = True  # a second answer to one request: what follows on this connection is anybody's guess

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + OVERHEAD_BYTES
        if self._header_bytes > MAX_FRAMING_BYTES:
            self._refuse(_TOO_MUCH_FRAMING)
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if not 100 <= status <= 599 or status == 101:  # no upgrade was asked for
            self._refuse(f"the status of the answer is {status}")
        response = self._response
        if status < 200 or response is None or self._surplus:
            self._headers = []
            return
        names = {name for name, _ in self._headers}
        self._until_close = status != 204 and not names & {b"content-length", b"transfer-encoding"}
        self._keep_alive = self._parser.should_keep_alive() and not self._until_close
        response.headers = self._headers
        response.status = status

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        if self._response is not None and self._response.add(body):
            assert self._transport is not None
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._response is not None and self._response.started:
            self._response.complete()

    def _refuse(self, why: str) -> NoReturn:
        """Stop the parser."""
        self._refused = why
        raise ValueError(why)


_TOO_MUCH_FRAMING = f"the head, a trailer or a chunk line of the answer has more than {MAX_FRAMING_BYTES >> 10} KiB"


class Origin:
    """Scheme, host and port, with the connections kept to it. `tls` is None for plain TCP."""

    def __init__(
        self, host: str, port: int, *, tls: ssl.SSLContext | None, connect_timeout: float, clock: Callable[[], float]
    ) -> None:
        self._host = host
        self._dialer = Dialer(host, port, clock=clock)
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._clock = clock
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._reaper: asyncio.TimerHandle | None = None
        self._retired = False

    @property
    def open(self) -> int:
        """Connections there are, idle ones included."""
        return len(self._open)

    async def exchange(self, head: bytes, body: bytes) -> Response:
        """Send a request; returns when the head of the answer is here. Raises TransportError.

        `head` ends with an empty line and has the body's content-length. After StaleConnection the next one that is sent gets a
        connection of its own: what was kept as long as a stale one is dropped with it.
        """
        kept = self._kept()
        if kept is None:
            return await _answer(await self._connect(), head, body)
        sent_at = self._clock()
        try:
            response = await _answer(kept, head, body)
        except TransportError as error:
            if kept.heard or self._clock() - sent_at > CROSSING_SECONDS:
                raise
            self._drop_idle()
            raise StaleConnection("a kept connection was closed as the request was sent") from error
        if response.status == REQUEST_TIMEOUT and self._clock() - sent_at <= CROSSING_SECONDS:
            response.close()
            self._drop_idle()
            raise StaleConnection("a kept connection ended for its idle time (408) as the request was sent")
        return response

    async def reach(self) -> None:
        """Return when the host has taken a connection, which is closed at once. Raises TransportError."""
        (await self._connect()).close()

    def close(self) -> None:
        """Drop every connection."""
        if self._reaper is not None:
            self._reaper.cancel()
        for connection in list(self._open):
            connection.close()

    def retire(self) -> None:
        """Keep no connection from now on: those in use go when their answers have ended."""
        self._retired = True
        self._drop_idle()

    def keep(self, connection: _Connection) -> None:
        """Hold a connection for the next request."""
        if self._retired:
            connection.close()
            return
        connection.idle_since = self._clock()
        self._idle.append(connection)
        if self._reaper is None:
            self._reaper = asyncio.get_running_loop().call_later(KEEPALIVE_SECONDS, self._reap)

    def forget(self, connection: _Connection) -> None:
        """The connection is gone."""
        self._open.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def _drop_idle(self) -> None:
        for connection in list(self._idle):
            connection.close()

    def _kept(self) -> _Connection | None:
        """The connection that was used last: it is the least likely to have been closed."""
        oldest = self._clock() - KEEPALIVE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    async def _connect(self) -> _Connection:
        connection = _Connection(self)
        try:
            await self._open_up(connection)
        except BaseException:
            connection.close()  # it may have been made just as the time was over, or as the call left
            raise
        self._open.add(connection)
        return connection

    async def _open_up(self, connection: _Connection) -> None:
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._attach(connection, await self._dialer.connect())
        except TimeoutError:
            raise ConnectTimeout(f"no connection within {self._connect_timeout:g} s (connect_timeout)") from None
        except ssl.SSLError as error:
            raise ConnectError(f"the TLS handshake failed ({error.reason or type(error).__name__})") from error
        except UnicodeError as error:  # what the resolver makes of a label of 64 characters
            raise ConnectError("the host name is not valid") from error
        except OSError as error:
            if error.errno in LOCAL and not isinstance(error, socket.gaierror):
                raise LocalShortage(f"out of {shortages.note(error.errno)}") from error
            raise ConnectError(_why(error)) from error

    async def _attach(self, connection: _Connection, sock: socket.socket) -> None:
        host = self._host if self._tls else None
        try:
            create = asyncio.get_running_loop().create_connection
            await create(lambda: connection, sock=sock, ssl=self._tls, server_hostname=host)
        except BaseException:
            sock.close()
            raise

    def _reap(self) -> None:
        """Close what has been idle for too long, so that a quiet gateway holds no connections."""
        self._reaper = None
        oldest = self._clock() - KEEPALIVE_SECONDS
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle.pop(0).close()
        if self._idle:
            self._reaper = asyncio.get_running_loop().call_later(KEEPALIVE_SECONDS, self._reap)


def _why(error: OSError) -> str:
    """The system's words; several addresses that fail alike say the same once. Resolvers have words of their own."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or "cannot connect"
    return os.strerror(error.errno)


async def _answer(connection: _Connection, head: bytes, body: bytes) -> Response:
    response = connection.send(head, body)
    try:
        while not response.started:
            if response.error is not None:
                raise response.error
            await response.wait()
    except BaseException:
        response.close()
        raise
    return response
