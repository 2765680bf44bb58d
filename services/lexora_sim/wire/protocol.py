"""The server's end of one TCP connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import httptools

from lexora_sim.wire.head import head
from lexora_sim.wire.request import Request

_MAX_PIPELINED = 16
_MAX_HEADER_BYTES = 64 * 1024
_INVALID = b"Invalid HTTP request received."
_LINGER_ZERO = struct.pack("ii", 1, 0)


class Exchange(Protocol):
    """One request and its answer, which is written to the connection."""

    @property
    def over(self) -> bool:
        """Whether the answer has ended."""

    @property
    def on_writable(self) -> Callable[[], None] | None:
        """Called when the client has caught up."""

    def disconnected(self) -> None:
        """Note that the client is gone."""


class Connection(asyncio.Protocol):
    """Parse requests one after the other and hand each to `serve`, which returns its exchange.

    When a client goes away, its exchange gets `disconnected` in the same turn of the loop.
    """

    def __init__(
        self,
        serve: Callable[[Connection, Request], Exchange],
        *,
        keep_alive: bool,
        max_body_bytes: int,
        opened: Callable[[Connection], None],
        closed: Callable[[Connection], None],
    ) -> None:
        self._serve = serve
        self._keep_alive = keep_alive
        self._max_body = max_body_bytes
        self._opened, self._closed = opened, closed
        self._transport: Any = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request] = deque()
        self._exchange: Exchange | None = None
        self.writable = True
        self._url = b""
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self._transport = transport
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._opened(self)

    def data_received(self, data: bytes) -> None:  # noqa: D102
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the request was served as HTTP/1.1; what follows is not read
        except httptools.HttpParserError:
            self._refuse(400, _INVALID)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: D102
        self._waiting.clear()
        self._closed(self)
        if self._exchange is not None:
            self._exchange.disconnected()
            self._exchange = None

    def pause_writing(self) -> None:  # noqa: D102
        self.writable = False

    def resume_writing(self) -> None:  # noqa: D102
        self.writable = True
        if self._exchange is not None and self._exchange.on_writable is not None:
            self._exchange.on_writable()

    # --- httptools

    def on_message_begin(self) -> None:  # noqa: D102
        self._url, self._headers, self._header_bytes = b"", {}, 0
        self._body, self._body_bytes = [], 0

    def on_url(self, url: bytes) -> None:  # noqa: D102
        self._url += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        self._count_header(len(name) + len(value))
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:  # noqa: D102
        if self._headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:  # noqa: D102
        self._body_bytes += len(data)
        if self._body_bytes > self._max_body:
            self._refuse(413, b"Request body too large.")
        elif not self._transport.is_closing():
            self._body.append(data)

    def on_message_complete(self) -> None:  # noqa: D102
        if self._transport.is_closing():
            return
        url = httptools.parse_url(self._url)
        request = Request(
            method=self._parser.get_method().decode("latin-1"),
            path=(url.path or b"/").decode("latin-1"),
            query=(url.query or b"").decode("latin-1"),
            headers=self._headers,
            body=b"".join(self._body),
            http_version=self._parser.get_http_version(),
            keep_alive=self._keep_alive and self._parser.should_keep_alive() and not self._parser.should_upgrade(),
        )
        self._body = []
        if self._exchange is None:
            self._exchange = self._serve_one(request)
        elif len(self._waiting) < _MAX_PIPELINED:
            self._waiting.append(request)
        else:
            self._refuse(400, _INVALID)

    # --- for exchanges

    def write(self, data: bytes) -> None:
        """Write bytes, unless the connection is closing."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def next(self, *, keep_alive: bool) -> None:
        """Go on to the next request, or close after the last byte."""
        self._exchange = None
        if not keep_alive:
            self.close()
        elif self._waiting:
            self._exchange = self._serve_one(self._waiting.popleft())

    def close(self) -> None:
        """Close after what is written went out."""
        if not self._transport.is_closing():
            self._transport.close()

    def reset(self) -> None:
        """Send RST."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None and not self._transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self._transport.abort()

    @property
    def idle(self) -> bool:
        """Whether no answer is under way."""
        return self._exchange is None

    def _serve_one(self, request: Request) -> Exchange | None:
        exchange = self._serve(self, request)
        return None if exchange.over else exchange

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _MAX_HEADER_BYTES:
            raise httptools.HttpParserError("headers too large")

    def _refuse(self, status: int, text: bytes) -> None:
        if self._transport.is_closing():
            return
        lines = [("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(text)))]
        self.write(head(status, [*lines, ("connection", "close")]) + text)
        self.close()
