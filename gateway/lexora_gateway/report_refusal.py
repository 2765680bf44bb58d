"""What the facade refuses by itself is a request all the same: the router counts it, and says where its user stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lexora.v1.call_pb2 import Call
from lexora.v1.router_pb2 import GenerateRequest
from lexora_contract.limits import MAX_REFUSAL, MAX_USER_READ
from lexora_contract.messages import options_message
from lexora_contract.port import CallFailed, Options, RouterPort
from lexora_contract.rpcs import GENERATE
from lexora_gateway.errors import Failure, from_failed
from lexora_gateway.headers import receipt_headers
from lexora_gateway.request import context_of, user_of

if TYPE_CHECKING:
    from lexora_gateway.client_request import ClientRequest

_SECONDS = 5.0


class _Named(msgspec.Struct, gc=False):
    user: str | None = None


_decode = msgspec.json.Decoder(_Named).decode


async def counted(router: RouterPort, failure: Failure, received: ClientRequest) -> Failure:
    """The failure with its trace and the user's limits, or, when these are used up, the refusal that takes its place.

    A call without an input is one that the router refuses, and counts.
    """
    options = Options(request_id=received.request_id, user=user_of(received.headers) or _user_in(received.body))
    context = context_of(received.headers, _SECONDS, received.hops)
    context.metadata += (("x-lexora-refused", _told(failure)),)
    try:
        await router.unary(GENERATE, GenerateRequest(call=Call(options=options_message(options))), context)
    except CallFailed as error:
        if error.reason == "RATE_LIMITED":
            limited = from_failed(error, received.request_id)
            # What is left of a body that was not read to its end must not be taken for the next request.
            limited.headers += [header for header in failure.headers if header[0] == b"connection"]
            return limited
        failure.trace_id = error.trace_id
        if error.receipt is not None:
            failure.headers += receipt_headers(error.receipt)
    return failure


def _told(failure: Failure) -> str:
    """What the client was told, as far as a header can hold it: the router writes it into its log."""
    text = f"The facade answered {failure.status}: {failure.message}"[:MAX_REFUSAL]
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)


def _user_in(body: bytes) -> str:
    """The user that a JSON body names, whatever else is wrong with it; empty when none can be read."""
    try:
        return (_decode(body).user or "")[:MAX_USER_READ]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
