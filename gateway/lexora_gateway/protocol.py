"""uvicorn's httptools protocol with a bound on the request head, which the parser lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lexora_gateway.errors import Failure, invalid, plain

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    from uvicorn.config import Config
    from uvicorn.server import ServerState

MAX_HEAD_BYTES = 64 * 1024
# Closing on a client that is still sending makes its kernel drop the answer, so what it sends is thrown away for a while.
LINGER_BYTES = 64 * 1024 * 1024
LINGER_SECONDS = 2.0
# A body with a length of so few digits (below 100 kB) is there before anybody can refuse it.
_SHORT_DIGITS = 5
# ": " and the line's end around each header.
_PER_HEADER = 4


class _HeadTooLarge(Exception):
    """The request line and headers passed the bound."""


class _LingeringTransport:
    """A connection as one response sees it: to close it means to close it gently."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses request heads over 64 KiB with 431 and closes; also bounds trailers and chunk extensions."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # Bytes received since the parser last got anywhere: a head began, a piece of a body came, a message ended.
        self._unparsed = 0
        self._read = 0
        # Length of the read that brought the head's first byte.
        self._first_read = 0
        self._in_head = False
        self._too_large = False
        self._linger_left = 0
        self._linger_end: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of the connection."""
        if self._linger_end is not None:
            self._linger_end.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; refuse what grows without end."""
        if self._linger_end is not None:
            self._throw_away(len(data))
            return
        self._read = len(data)
        self._unparsed += self._read
        super().data_received(data)
        if self._unparsed > MAX_HEAD_BYTES and self._linger_end is None and not self.transport.is_closing():
            self._too_large = True
            self.send_400_response("")

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
        if self._first_read + self._unparsed > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES:
            self._too_large = True
            raise _HeadTooLarge
        super().on_headers_complete()
        if self._has_long_body() and self.cycle is not None:
            self.cycle.transport = cast("asyncio.Transport", _LingeringTransport(self.transport, self.close_gently))

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request's last byte."""
        self._unparsed = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A response's last byte."""
        if self._linger_end is None:
            super().on_response_complete()

    def close_gently(self) -> None:
        """Close, but let a client that is still sending its request read the answer first."""
        done = self.cycle is not None and not self.cycle.more_body and not self._too_large
        if done or self.transport.is_closing():
            self.transport.close()
            return
        self._linger_left = LINGER_BYTES
        self._linger_end = self.loop.call_later(LINGER_SECONDS, self.transport.close)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()

    def _throw_away(self, count: int) -> None:
        self._linger_left -= count
        if self._linger_left < 0:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse and close: 431 for a head too large, else 400, in OpenAI's error shape."""
        if self.cycle is not None and not self.cycle.response_complete:
            # A second status inside a response under way would be taken for a part of it.
            self.transport.close()
            return
        if self._too_large:
            failure = plain(431, f"The request line and headers are larger than {MAX_HEAD_BYTES} bytes.")
            self._refuse(failure, b"431 Request Header Fields Too Large")
        else:
            self._refuse(invalid(msg), b"400 Bad Request")

    def _refuse(self, failure: Failure, status: bytes) -> None:
        body = failure.body()
        lines = [
            b"HTTP/1.1 " + status,
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"connection: close",
            b"",
            body,
        ]
        self.transport.write(b"\r\n".join(lines))
        self.close_gently()

    def _has_long_body(self) -> bool:
        for name, value in self.headers:
            if name == b"transfer-encoding" or (name == b"content-length" and len(value) > _SHORT_DIGITS):
                return True
        return False

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + _PER_HEADER for name, value in self.headers)
