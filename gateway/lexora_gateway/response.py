"""One response on its way to the client: whole, streamed, or failed before or after its head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lexora_contract.operations import Dialect
from lexora_gateway.errors import in_dialect
from lexora_gateway.headers import media_type, number, passthrough_headers, receipt_headers
from lexora_gateway.sse import error_event

if TYPE_CHECKING:
    from lexora_contract.answer import Head, Receipt, Reply
    from lexora_gateway.asgi_types import HeaderList, Send
    from lexora_gateway.errors import Failure

_JSON = b"application/json"
_EVENT_STREAM = b"text/event-stream; charset=utf-8"
_STREAM_HEADERS = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


class Answer:
    """Writes one response. `started` is true once the status is sent, after which a failure becomes an event."""

    __slots__ = ("_dialect", "_request_id", "_send", "started")

    def __init__(self, send: Send, request_id: str, dialect: Dialect = Dialect.OTHER) -> None:
        self._send = send
        self._request_id = (b"x-request-id", request_id.encode("ascii"))
        self._dialect = dialect
        self.started = False

    def streams(self) -> None:
        """The call is known to stream, although nothing of its answer is there."""

    def close(self) -> None:
        """Nothing more will be written."""

    async def reply(self, reply: Reply, receipt: Receipt) -> None:
        """Send the engine's whole answer, its body untouched."""
        head = reply.head
        headers = [(b"content-type", media_type(head.content_type, _JSON)), *receipt_headers(receipt)]
        if head.headers:
            headers += passthrough_headers(head.headers, receipt)
        await self.whole(head.status, headers, reply.body)

    async def json(self, body: bytes, receipt: Receipt) -> None:
        """Send a JSON answer of the facade's own making."""
        await self.whole(200, [(b"content-type", _JSON), *receipt_headers(receipt)], body)

    async def whole(self, status: int, headers: HeaderList, body: bytes) -> None:
        """Send status, headers (x-request-id and content-length are added) and body."""
        headers.append(self._request_id)
        headers.append((b"content-length", number(len(body))))
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def empty(self, status: int, headers: HeaderList) -> None:
        """Send a status that has no body, with headers (x-request-id is added)."""
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, self._request_id]})
        await self._send({"type": "http.response.body", "body": b""})

    async def begin(self, head: Head | None, receipt: Receipt) -> None:
        """Send status and headers of a stream."""
        content_type = _EVENT_STREAM if head is None else media_type(head.content_type, _EVENT_STREAM)
        headers = [(b"content-type", content_type), *_STREAM_HEADERS, self._request_id, *receipt_headers(receipt)]
        if head is not None and head.headers:
            headers += [pair for pair in passthrough_headers(head.headers, receipt) if pair[0] != b"cache-control"]
        self.started = True
        status = 200 if head is None else head.status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def piece(self, body: bytes) -> None:
        """Send a piece of a stream, now."""
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self) -> None:
        """End a stream."""
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, failure: Failure) -> None:
        """Send a failure: as the answer, or as the stream's last event when its head is out already."""
        if self.started:
            await self._send({"type": "http.response.body", "body": error_event(self._dialect, failure)})
        else:
            failure = in_dialect(self._dialect, failure, self._request_id[1].decode())
            headers = [(b"content-type", failure.content_type), *failure.headers]
            await self.whole(failure.status, headers, failure.body())
