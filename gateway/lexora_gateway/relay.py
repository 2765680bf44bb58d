"""The relayed endpoints: the client's bytes go to the router, the engine's bytes come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from lexora.v1.call_pb2 import Call
from lexora.v1.explain_pb2 import ExplainRequest
from lexora.v1.options_pb2 import CallOptions
from lexora.v1.raw_pb2 import RawCall
from lexora.v1.receipt_pb2 import Receipt
from lexora.v1.router_pb2 import StreamRequest, StreamResponse
from lexora_contract.operations import OPERATIONS, STORED, dialect_of
from lexora_gateway.call_headers import call_options
from lexora_gateway.cancel_on_disconnect import until_gone
from lexora_gateway.endpoint import Endpoint
from lexora_gateway.errors import Refused, invalid
from lexora_gateway.keepalive import ANNOUNCE

if TYPE_CHECKING:
    from lexora_gateway.asgi_types import Headers, Receive, Scope, Send
    from lexora_gateway.request import Limits
    from lexora_gateway.request_context import Asked
    from lexora_gateway.response import Answer
    from lexora_gateway.router_port import RouterPort


class Relay(Endpoint):
    """POST of one relayed path with a JSON body."""

    def __init__(self, path: str, router: RouterPort, limits: Limits) -> None:
        super().__init__(router, limits, dialect_of(path))
        self._path = path
        self._announce = ANNOUNCE if limits.stream_keepalive is not None else ()

    async def serve(self, asked: Asked, receive: Receive, answer: Answer) -> None:
        """Relay the call. Whether it streams is for the router to say, which parses the body."""
        options, call = self._call(asked)
        sink = _Sink(answer)
        request, context = StreamRequest(call=Call(options=options, raw=call)), asked.context_with_body()
        context.metadata += self._announce
        await until_gone(receive, self._router.stream(request, context, sink.emit))
        await sink.end()

    def explained(self, asked: Asked) -> ExplainRequest:
        """The same call, to be explained."""
        options, call = self._call(asked)
        return ExplainRequest(call=Call(options=options, raw=call))

    def _call(self, asked: Asked) -> tuple[CallOptions, RawCall]:
        options = call_options(asked.headers, asked.request_id)
        return options, RawCall(path=self._path, content_type=_text(asked.headers))


class AudioRelay(Relay):
    """POST of one relayed path with a multipart form."""

    def check(self, headers: Headers, body: bytes) -> None:
        """Refuse a content type that is not multipart/form-data, and an empty body."""
        media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if media != b"multipart/form-data":
            raise Refused(invalid("Unsupported media type: only 'multipart/form-data' is allowed.", "content-type"))
        if not body:
            raise Refused(invalid("The request body is empty; a form is needed.", "body"))


class StoredRelay(Relay):
    """One request for a stored response, which has a method, perhaps a query, and no body that counts."""

    def __init__(self, scope: Scope, router: RouterPort, limits: Limits) -> None:
        super().__init__(scope["path"], router, limits)
        self._asked = RawCall(path=scope["path"], method=scope["method"], query=scope["query_string"].decode("latin-1"))

    def check(self, headers: Headers, body: bytes) -> None:
        """Refuse nothing."""

    def explained(self, asked: Asked) -> ExplainRequest:
        """Refuse: there is nothing to choose."""
        return Endpoint.explained(self, asked)

    def _call(self, asked: Asked) -> tuple[CallOptions, RawCall]:
        asked.body = b""
        return call_options(asked.headers, asked.request_id), self._asked


class _Sink:
    """Passes the router's messages on: frames at once, a whole reply at the end."""

    __slots__ = ("_answer", "_receipt", "_reply")

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._receipt: Receipt | None = None
        self._reply: StreamResponse | None = None

    async def emit(self, message: StreamResponse) -> None:
        frames = message.frames
        answer = self._answer
        if not answer.started or not frames:
            if message.HasField("receipt"):
                self._receipt = message.receipt
            if message.HasField("reply"):
                self._reply = message
            elif frames or message.HasField("head"):
                if not answer.started:
                    head = message.head if message.HasField("head") else None
                    await answer.begin(head, self._receipt or Receipt())
            else:
                answer.streams()
        if frames:
            await answer.piece(frames)

    async def end(self) -> None:
        if self._reply is not None:
            await self._answer.reply(self._reply.reply, self._receipt or Receipt())
        elif self._answer.started:
            await self._answer.end()
        else:
            raise RuntimeError("the router's stream ended without an answer")


def _text(headers: Headers) -> str:
    return headers[b"content-type"].decode("latin-1")


def relays(router: RouterPort, limits: Limits) -> dict[str, Endpoint]:
    """Every relayed endpoint by path."""
    return {path: (AudioRelay if row.form else Relay)(path, router, limits) for path, row in OPERATIONS.items()}


def stored_routes(router: RouterPort, limits: Limits) -> list[Route]:
    """The routes of stored responses, whose paths have an id in them."""

    class Stored:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await StoredRelay(scope, router, limits)(scope, receive, send)

    return [Route(path, Stored(), methods=list(row.methods)) for path, row in STORED.items()]
