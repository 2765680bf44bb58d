"""One answer on its way to the client: whole, streamed, or failed before or after its head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lexora_contract.answer import Receipt
from lexora_contract.operations import Dialect
from lexora_gateway.errors import in_dialect
from lexora_gateway.headers import media_type, passthrough_headers, receipt_headers
from lexora_gateway.sse import error_event

if TYPE_CHECKING:
    from lexora_contract.answer import Head, Reply
    from lexora_gateway.asgi_types import HeaderList
    from lexora_gateway.client_side import ClientSide
    from lexora_gateway.errors import Failure

_JSON = b"application/json"
_EVENT_STREAM = b"text/event-stream; charset=utf-8"
_STREAM_HEADERS = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


class Answer:
    """What the router says of a call (a ClientSink), as an HTTP answer at the client's side.

    A failure after the head is an event of the stream. A whole reply is kept until `finish`: until then the call may fail.
    """

    __slots__ = ("_client", "_dialect", "_receipt", "_reply", "_request_id")

    def __init__(self, client: ClientSide, request_id: str, dialect: Dialect = Dialect.OTHER) -> None:
        self._client = client
        self._request_id = (b"x-request-id", request_id.encode("ascii"))
        self._dialect = dialect
        self._receipt: Receipt | None = None
        self._reply: Reply | None = None

    def close(self) -> None:
        """Nothing more will be written."""

    def accepted(self, receipt: Receipt, *, streams: bool) -> None:
        """The request is understood."""
        self._receipt = receipt
        if streams:
            self.streams()

    def streams(self) -> None:
        """The call is known to stream, although nothing of its answer is there."""

    def head(self, head: Head | None) -> None:
        """Status and headers of a stream, which go out with its first frames."""
        receipt = self._receipt or Receipt()
        content_type = _EVENT_STREAM if head is None else media_type(head.content_type, _EVENT_STREAM)
        headers = [(b"content-type", content_type), *_STREAM_HEADERS, self._request_id, *receipt_headers(receipt)]
        if head is not None and head.headers:
            headers += [pair for pair in passthrough_headers(head.headers, receipt) if pair[0] != b"cache-control"]
        self._client.start(200 if head is None else head.status, headers)

    def frames(self, data: bytes) -> None:
        """Whole events of a stream, sent now."""
        self._client.write(data)

    def reply(self, reply: Reply) -> None:
        """The engine's whole answer."""
        self._reply = reply

    def finish(self) -> None:
        """The call has succeeded: send its whole reply, the body untouched, or end its stream."""
        if self._reply is None:
            self.end()
            return
        reply, receipt = self._reply, self._receipt or Receipt()
        head = reply.head
        headers = [(b"content-type", media_type(head.content_type, _JSON)), *receipt_headers(receipt)]
        if head.headers:
            headers += passthrough_headers(head.headers, receipt)
        self.whole(head.status, headers, reply.body)

    def end(self) -> None:
        """End a stream."""
        if not self._client.started:
            raise RuntimeError("the router's stream ended without an answer")
        self._client.end()

    def json(self, body: bytes, receipt: Receipt) -> None:
        """Send a JSON answer of the facade's own making."""
        self.whole(200, [(b"content-type", _JSON), *receipt_headers(receipt)], body)

    def whole(self, status: int, headers: HeaderList, body: bytes) -> None:
        """Send status, headers (x-request-id and content-length are added) and body."""
        headers.append(self._request_id)
        self._client.whole(status, headers, body)

    def empty(self, status: int, headers: HeaderList) -> None:
        """Send a status that has no body, with headers (x-request-id is added)."""
        self._client.start(status, [*headers, self._request_id])
        self._client.end()

    def fail(self, failure: Failure) -> None:
        """Send a failure: as the answer, or as the stream's last event when its head is out already."""
        if self._client.started:
            self._client.write(error_event(self._dialect, failure))
            self._client.end()
        else:
            failure = in_dialect(self._dialect, failure, self._request_id[1].decode())
            self.whole(failure.status, [(b"content-type", failure.content_type), *failure.headers], failure.body())
