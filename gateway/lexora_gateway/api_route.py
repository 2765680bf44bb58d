"""A route of the API: body in, failures out, the same for all of them, at either client side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import structlog

from lexora_contract.operations import Dialect
from lexora_contract.plain import plain
from lexora_contract.port import CallFailed, Options
from lexora_contract.rpcs import EXPLAIN as EXPLAIN_RPC
from lexora_contract.rpcs import STREAM
from lexora_gateway.asgi_client import AsgiClient
from lexora_gateway.body import announced, arrived_body, read_body
from lexora_gateway.call_headers import EXPLAIN, check_explain
from lexora_gateway.client_request import ClientRequest
from lexora_gateway.client_side import ClientGone
from lexora_gateway.errors import Refused, bug, from_failed, invalid
from lexora_gateway.keepalive import KeptAnswer
from lexora_gateway.report_refusal import counted
from lexora_gateway.request import Clock, check_identity, context_of, hops_of, named_tenant_of, request_id_of, user_of
from lexora_gateway.response import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from lexora.v1.explain_pb2 import ExplainRequest
    from lexora_contract.port import RouterPort
    from lexora_gateway.asgi_types import Headers, Receive, Scope, Send
    from lexora_gateway.client_side import ClientSide
    from lexora_gateway.request import Limits

_log = structlog.get_logger("lexora_gateway")


class _Foreseen(Exception):
    """A refusal before the body is read."""

    def __init__(self, error: CallFailed) -> None:
        super().__init__()
        self.error = error


class ApiRoute(ABC):
    """Reads a bounded body, lets `serve` answer, and turns whatever fails into an answer."""

    def __init__(self, router: RouterPort, limits: Limits, dialect: Dialect = Dialect.OTHER) -> None:
        self._router = router
        self._limits = limits
        self._answer: Callable[[ClientSide, str], Answer] = partial(Answer, dialect=dialect)
        if limits.stream_keepalive is not None:
            self._answer = partial(KeptAnswer, dialect=dialect, seconds=limits.stream_keepalive)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request of an ASGI server."""
        client = AsgiClient(scope, receive, send)
        await client.run(self.handle(client))

    async def handle(self, client: ClientSide) -> None:
        """Serve one request. It is cancelled when the client leaves."""
        headers = client.headers
        request_id = request_id_of(headers)
        answer = self._answer(client, request_id)
        received = ClientRequest(headers, request_id, hops_of(client), client.certificate)
        try:
            limits = self._limits
            clock = Clock(headers, limits.max_request_timeout)
            check_identity(client, limits.trusts)
            body = arrived_body(client, limits)
            if body is None:
                account = await self._foresee(received, clock.remaining())
                body = await read_body(client, limits, clock.end, account)
            received.body = body
            self.check(headers, received.body)
            received.context = context_of(headers, clock.remaining(), received.hops, client.flow, received.certificate)
            if EXPLAIN not in headers:
                await self.serve(received, answer)
            else:
                await self._explain(received, answer)
        except ClientGone:
            return
        except CallFailed as error:
            answer.fail(from_failed(error, request_id))
        except _Foreseen as early:
            failure = from_failed(early.error, request_id)
            failure.headers.append((b"connection", b"close"))  # the body has not been read
            answer.fail(failure)
        except Refused as error:
            free = EXPLAIN in headers  # to ask costs nothing, however badly
            answer.fail(error.failure if free else await counted(self._router, error.failure, received))
        except Exception:  # the boundary: a bug must not take the connection's other requests with it
            _log.exception("bug", request_id=request_id, route=type(self).__name__)
            answer.fail(bug(request_id))
        finally:
            answer.close()

    async def _foresee(self, received: ClientRequest, remaining: float | None) -> str:
        """Refuse a body before it is read, when its call would be refused whatever it says; gives its account, if known."""
        headers = received.headers
        size = announced(headers)
        if size is None and b"expect" not in headers:
            return ""
        rpc = EXPLAIN_RPC if EXPLAIN in headers else STREAM
        options = Options(received.request_id, user=user_of(headers), tenant=named_tenant_of(headers))
        context = context_of(headers, remaining, received.hops, certificate=received.certificate)
        try:
            return await self._router.foresee(rpc, options, context, size or 0)
        except CallFailed as error:
            raise _Foreseen(error) from None

    def check(self, headers: Headers, body: bytes) -> None:
        """Refuse a content type that is not JSON, and an empty body."""
        content_type = headers.get(b"content-type")
        if content_type != b"application/json" and not _is_json(content_type):
            raise Refused(invalid("Unsupported media type: only 'application/json' is allowed.", "content-type"))
        if not body:
            raise Refused(invalid("The request body is empty; a JSON object is needed.", "body"))

    def explained(self, received: ClientRequest) -> ExplainRequest:
        """The question what would become of this call. Raises Refused as `serve` would."""
        name = EXPLAIN.decode()
        raise Refused(invalid(f"{name} cannot be had here: it is for calls that a model answers.", name))

    async def _explain(self, received: ClientRequest, answer: Answer) -> None:
        """Answer what would become of the call instead of serving it."""
        check_explain(received.headers)
        question = self.explained(received)
        explanation = await self._router.unary(EXPLAIN_RPC, question, received.context_with_body())
        headers = [(b"content-type", b"application/json"), (EXPLAIN, b"1")]
        answer.whole(200, headers, msgspec.json.encode(plain(explanation)))

    @abstractmethod
    async def serve(self, received: ClientRequest, answer: Answer) -> None:
        """Answer a request whose body has been read."""


def _is_json(content_type: bytes | None) -> bool:
    if content_type is None:
        return False
    media = content_type.partition(b";")[0].strip().lower()
    return media == b"application/json" or media.endswith(b"+json")
