"""One request on a connection, and the answer to it: the client's side of a call at the facade's own server."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

from lexora_contract.port import Flow
from lexora_gateway.client_side import ClientGone
from lexora_gateway.errors import Refused
from lexora_gateway.headers import number

if TYPE_CHECKING:
    from lexora_gateway.asgi_types import HeaderList, Headers
    from lexora_gateway.errors import Failure

# With more of a body that is not read yet, nothing is read from the connection.
HIGH_WATER_BYTES = 64 * 1024
# Up to here a copy costs less than a second buffer.
_COPIED_BYTES = 64 * 1024
_BODILESS = (204, 304)


class Connection(Protocol):
    """What an exchange needs of the connection that it is on."""

    transport: asyncio.Transport
    address: str
    certificate: tuple[str, ...]

    def first_lines(self, status: int) -> bytes:
        """The first lines of a response."""

    def read_on(self) -> None:
        """Read as long as there is room for what comes."""

    def answered(self, exchange: Exchange, /) -> None:
        """The last byte of an answer is written."""


class Exchange:
    """A request as it arrives, and its answer as it leaves, framed by RFC 9112.

    `is_open` ends with the answer, or with the client. An answer without a length is chunked; to HTTP/1.0, which takes no
    chunks, it ends with the connection.
    """

    __slots__ = (
        "_body",
        "_chunked",
        "_connection",
        "_head",
        "_is_read",
        "_news",
        "_refusal",
        "added",
        "address",
        "ends_by_leaving",
        "expects_continue",
        "flow",
        "headers",
        "is_open",
        "keep_alive",
        "method",
        "more_body",
        "pairs",
        "path",
        "query",
        "started",
        "task",
        "version",
    )

    def __init__(
        self,
        connection: Connection,
        *,
        method: bytes,
        path: bytes,
        query: bytes,
        version: str,
        pairs: HeaderList,
        headers: Headers,
        keep_alive: bool,
    ) -> None:
        self._connection = connection
        self.address = connection.address
        self.method = method
        self.path = path  # still percent-encoded
        self.query = query
        self.version = version
        self.pairs = pairs
        self.headers = headers
        # HTTP/1.0 has neither.
        self.keep_alive = keep_alive and version != "1.0"
        self.expects_continue = (
            b"expect" in headers and version != "1.0" and headers[b"expect"].strip().lower() == b"100-continue"
        )
        self.flow = Flow()
        self.added: HeaderList = []  # headers of its answer, whatever else it has
        self.task: asyncio.Task[None] | None = None  # that serves it
        self.ends_by_leaving = True
        self.is_open = True
        self._body: bytes | bytearray = b""
        self.more_body = True
        self._is_read = False  # to its end
        self._news: asyncio.Event | None = None  # while something waits in `read`
        self._refusal: Failure | None = None
        self.started = False
        self._chunked = False
        self._head = b""  # that waits for the first of its body

    @property
    def certificate(self) -> tuple[str, ...]:
        """The names in the client's certificate."""
        return self._connection.certificate

    # The request's body.

    @property
    def is_ahead(self) -> bool:
        """Whether more of the body is here than is worth reading further."""
        return len(self._body) > HIGH_WATER_BYTES

    @property
    def unread(self) -> bytes:
        """What is here of the body and was not read yet."""
        return bytes(self._body)

    def feed(self, piece: bytes) -> None:
        """A piece of the body came; once the answer is complete it is dropped."""
        if self.is_open:
            if self._body:
                if isinstance(self._body, bytes):
                    self._body = bytearray(self._body)
                self._body += piece
            else:
                self._body = piece
            self._wake()

    def feed_end(self) -> None:
        """All of the body came."""
        self.more_body = False
        self._wake()

    def arrived(self) -> bytes | None:
        """The whole body, if all of it is there already and none of it has been read."""
        if self.more_body or self._is_read:
            return None
        self._is_read = True
        body, self._body = self._body, b""
        return bytes(body)

    def refuse(self, failure: Failure) -> None:
        """What is not here of the body is not wanted: `read` raises Refused."""
        self._refusal = failure
        self._wake()

    async def read(self) -> tuple[bytes, bool]:
        """The next piece of the body, and whether there will be more; after the last one it waits for the client to leave."""
        if self.expects_continue:
            self.expects_continue = False
            if self.more_body and not self.started:
                self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while self.is_open and self._refusal is None and (self._is_read or (self.more_body and not self._body)):
            if self._news is None:
                self._news = asyncio.Event()
            self._news.clear()
            self._connection.read_on()
            await self._news.wait()
        if not self.is_open:
            raise ClientGone
        if self._refusal is not None:
            raise Refused(self._refusal)
        body, self._body = self._body, b""
        self._is_read = not self.more_body
        self._connection.read_on()
        return bytes(body), self.more_body

    # The answer.

    def whole(self, status: int, headers: HeaderList, body: bytes) -> None:
        """Send a whole answer in one write."""
        if self.is_open:
            headers.append((b"content-length", number(len(body))))
            self.start(status, headers)
            if len(body) > _COPIED_BYTES:
                self._connection.transport.writelines((self._head, body))
            else:
                self._connection.transport.write(self._head + body)
            self._head = b""
            self._close()

    def start(self, status: int, headers: HeaderList) -> None:
        """Begin an answer; the status, and whether the connection stays, are certain from now on."""
        if not self.is_open:
            return
        self.started = True
        self.expects_continue = False
        chunked = self.version != "1.0" and status not in _BODILESS and self.method != b"HEAD"
        says_close = False
        for name, value in headers:
            if name == b"content-length":
                chunked = False
            elif name == b"connection" and b"close" in value.lower():
                says_close = True
                self.keep_alive = False
        lines = [b"%b: %b\r\n" % pair for pair in (*headers, *self.added)]
        if not (self.keep_alive or says_close):
            lines.append(b"connection: close\r\n")
        lines.append(b"transfer-encoding: chunked\r\n\r\n" if chunked else b"\r\n")
        self._head = self._connection.first_lines(status) + b"".join(lines)
        self._chunked = chunked

    def write(self, data: bytes) -> None:
        """Send a piece of the answer, with the head if that has not been sent."""
        if self.is_open and data:
            head, self._head = self._head, b""
            if not self._chunked:
                self._connection.transport.writelines((head, data))
            elif len(data) > _COPIED_BYTES:
                self._connection.transport.writelines((b"%b%x\r\n" % (head, len(data)), data, b"\r\n"))
            else:
                self._connection.transport.write(b"%b%x\r\n%b\r\n" % (head, len(data), data))

    def end(self) -> None:
        """The answer is complete."""
        if self.is_open:
            last = self._head + b"0\r\n\r\n" if self._chunked else self._head
            self._head = b""
            if last:
                self._connection.transport.write(last)
            self._close()

    def lose(self) -> None:
        """The client has left, or is left: nothing more is written. Cancels `task`, or lets what waits here go on."""
        if self.is_open:
            self.is_open = False
            self._head = b""
            if self.task is not None and self.ends_by_leaving:
                self.task.cancel()
                self.task.add_done_callback(_forget)
            else:
                self.flow.resume()
                self._wake()

    def _close(self) -> None:
        self.is_open = False
        self._body = b""
        self._wake()
        self._connection.answered(self)

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()


def _forget(task: asyncio.Task[None]) -> None:
    """Take its error from a task that was cancelled: it would keep it, with all frames in it, and they have the task."""
    if task.cancelled():
        with contextlib.suppress(asyncio.CancelledError):
            task.result()
