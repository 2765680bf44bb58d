"""The relayed endpoints: the client's bytes go to the router, the engine's bytes come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lexora.v1.explain_pb2 import ExplainRequest
from lexora_contract.messages import fill_call
from lexora_contract.operations import OPERATIONS, dialect_of, operation_of
from lexora_contract.port import RawCall
from lexora_gateway.api_route import ApiRoute
from lexora_gateway.call_headers import call_options
from lexora_gateway.errors import Refused, invalid
from lexora_gateway.keepalive import ANNOUNCE

if TYPE_CHECKING:
    from lexora_contract.port import RouterPort
    from lexora_gateway.asgi_types import Headers, Scope
    from lexora_gateway.client_request import ClientRequest
    from lexora_gateway.request import Limits
    from lexora_gateway.response import Answer


class Relay(ApiRoute):
    """POST of one relayed path with a JSON body."""

    def __init__(self, path: str, router: RouterPort, limits: Limits) -> None:
        super().__init__(router, limits, dialect_of(path))
        self._path = path
        self._headers = [(name, name.encode()) for name in operation_of(path).headers]
        self._announce = ANNOUNCE if limits.stream_keepalive is not None else ()

    async def serve(self, received: ClientRequest, answer: Answer) -> None:
        """Relay the call. Whether it streams is for the router to say, which parses the body."""
        call, context = self._call(received), received.context
        call.body, received.body = received.body, b""
        context.metadata += self._announce
        await self._router.relay(call, context, answer)
        answer.finish()

    def explained(self, received: ClientRequest) -> ExplainRequest:
        """The same call, to be explained."""
        request = ExplainRequest()
        fill_call(request.call, self._call(received))
        return request

    def _call(self, received: ClientRequest) -> RawCall:
        content_type = received.headers[b"content-type"].decode("latin-1")
        given = received.headers
        headers = tuple([(name, given[key].decode("latin-1")) for name, key in self._headers if key in given])
        return RawCall(self._path, content_type, headers=headers, options=call_options(given, received.request_id))


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
        self._method, self._query = scope["method"], scope["query_string"].decode("latin-1")

    def check(self, headers: Headers, body: bytes) -> None:
        """Refuse nothing."""

    def explained(self, received: ClientRequest) -> ExplainRequest:
        """Refuse: there is nothing to choose."""
        return ApiRoute.explained(self, received)

    def _call(self, received: ClientRequest) -> RawCall:
        received.body = b""
        options = call_options(received.headers, received.request_id)
        return RawCall(self._path, method=self._method, query=self._query, options=options)


def relays(router: RouterPort, limits: Limits) -> dict[str, ApiRoute]:
    """Every relayed endpoint by path."""
    return {path: (AudioRelay if row.form else Relay)(path, router, limits) for path, row in OPERATIONS.items()}
