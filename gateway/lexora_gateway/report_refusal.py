"""What the facade refuses by itself is a request all the same: the router counts it, and says where its user stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lexora.v1.router_pb2 import ReportRefusalRequest
from lexora_contract.limits import MAX_REFUSAL, MAX_USER_READ
from lexora_contract.messages import options_message, receipt_of
from lexora_contract.port import CallFailed, Options, RouterPort
from lexora_contract.rpcs import REPORT_REFUSAL
from lexora_gateway.errors import Failure, from_failed
from lexora_gateway.headers import receipt_headers
from lexora_gateway.request import context_of, named_tenant_of, user_of

if TYPE_CHECKING:
    from lexora_gateway.client_request import ClientRequest

_SECONDS = 5.0
# What the router refuses a caller for, whatever it asks.
_OF_THE_CALLER = frozenset(("RATE_LIMITED", "UNAUTHENTICATED", "TOO_MANY_ATTEMPTS", "PERMISSION_DENIED", "ACCESS_UNAVAILABLE"))


class _Named(msgspec.Struct, gc=False):
    user: str | None = None


_decode = msgspec.json.Decoder(_Named).decode


async def counted(router: RouterPort, failure: Failure, received: ClientRequest) -> Failure:
    """The failure with its trace and the user's limits, or the router's own refusal of this caller, which takes its place."""
    headers = received.headers
    user, tenant = user_of(headers) or _user_in(received.body), named_tenant_of(headers)
    options = Options(request_id=received.request_id, user=user, tenant=tenant)
    context = context_of(received.headers, _SECONDS, received.hops, certificate=received.certificate)
    text = f"The facade answered {failure.status}: {failure.message}"[:MAX_REFUSAL]
    request = ReportRefusalRequest(options=options_message(options), http_status=failure.status, message=text)
    try:
        receipt = (await router.unary(REPORT_REFUSAL, request, context)).receipt
    except CallFailed as error:
        if error.reason in _OF_THE_CALLER:
            refused = from_failed(error, received.request_id)
            # What is left of a body that was not read to its end must not be taken for the next request.
            refused.headers += [header for header in failure.headers if header[0] == b"connection"]
            return refused
        failure.trace_id = error.trace_id
    else:
        failure.trace_id = receipt.trace_id
        failure.headers += receipt_headers(receipt_of(receipt))
    return failure


def _user_in(body: bytes) -> str:
    """The user that a JSON body names, whatever else is wrong with it; empty when none can be read."""
    try:
        return (_decode(body).user or "")[:MAX_USER_READ]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
