"""From the router's errors to google.rpc.Status, ErrorInfo always, hints where they help.

https://google.aip.dev/193 and google/rpc/error_details.proto.
"""

import time

from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from lexora.v1 import errors_pb2, raw_pb2, receipt_pb2
from lexora_router.errors import (
    Draining,
    NoHealthyEndpoint,
    OutOfResources,
    QueueFull,
    RateLimited,
    RequestQuarantined,
    RouterError,
    UpstreamBroken,
    UpstreamRefused,
)
from lexora_router.payload.error_bodies import readable
from lexora_router.payload.retry_after import parse
from lexora_router.policy.failures import hint_of

DOMAIN = "lexora.spirrow"
RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 86_400.0
# A message travels beside the details, percent-encoded, and both must fit into the metadata that clients accept.
MAX_MESSAGE_BYTES = 512
MAX_HEADER_BYTES = 512

_CODES = {
    "INVALID_REQUEST": code_pb2.INVALID_ARGUMENT,
    "UNSUPPORTED_BY_BACKEND": code_pb2.INVALID_ARGUMENT,
    "MODEL_NOT_FOUND": code_pb2.NOT_FOUND,
    "NOT_FOUND": code_pb2.NOT_FOUND,
    "REQUEST_TOO_LARGE": code_pb2.RESOURCE_EXHAUSTED,
    "CLIENT_STALLED": code_pb2.ABORTED,
    "RATE_LIMITED": code_pb2.RESOURCE_EXHAUSTED,
    "QUEUE_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "UNIMPLEMENTED": code_pb2.UNIMPLEMENTED,
    "CLASSIFIER_DISABLED": code_pb2.UNAVAILABLE,
    "NO_HEALTHY_ENDPOINT": code_pb2.UNAVAILABLE,
    "REQUEST_QUARANTINED": code_pb2.UNAVAILABLE,
    "DRAINING": code_pb2.UNAVAILABLE,
    "DEADLINE_EXCEEDED": code_pb2.DEADLINE_EXCEEDED,
    "OUT_OF_RESOURCES": code_pb2.UNAVAILABLE,
    "UPSTREAM_UNREACHABLE": code_pb2.UNAVAILABLE,
    "UPSTREAM_INVALID": code_pb2.UNAVAILABLE,
    "UPSTREAM_BROKEN": code_pb2.UNAVAILABLE,
    "UPSTREAM_TIMEOUT": code_pb2.DEADLINE_EXCEEDED,
    "INTERNAL": code_pb2.INTERNAL,
}

# https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto names the HTTP status of each code.
_UPSTREAM_CODES = {
    400: code_pb2.INVALID_ARGUMENT,
    401: code_pb2.UNAUTHENTICATED,
    403: code_pb2.PERMISSION_DENIED,
    404: code_pb2.NOT_FOUND,
    408: code_pb2.DEADLINE_EXCEEDED,
    409: code_pb2.ABORTED,
    413: code_pb2.RESOURCE_EXHAUSTED,
    422: code_pb2.INVALID_ARGUMENT,
    429: code_pb2.RESOURCE_EXHAUSTED,
    501: code_pb2.UNIMPLEMENTED,
    504: code_pb2.DEADLINE_EXCEEDED,
}


def code_of(error: RouterError) -> "code_pb2.Code.ValueType":
    """The gRPC code of an error."""
    if isinstance(error, UpstreamRefused):
        status = error.http_status
        return _UPSTREAM_CODES.get(status, code_pb2.FAILED_PRECONDITION if status < 500 else code_pb2.UNAVAILABLE)
    return _CODES[error.reason]


def status_of(error: RouterError, receipt: receipt_pb2.Receipt, *, max_body: int, trace_id: str = "") -> status_pb2.Status:
    """The status of an error. An engine's own answer is carried in UpstreamError, at most `max_body` bytes of it."""
    message = _bounded(error.message)
    known = {"request_id": receipt.request_id, "backend": receipt.backend} | _trace(trace_id)
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=known)]
    param = getattr(error, "param", None)
    if param:
        violation = error_details_pb2.BadRequest.FieldViolation(field=param, description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    delay = retry_delay(error)
    if delay is not None:
        hint = error_details_pb2.RetryInfo()
        hint.retry_delay.seconds, hint.retry_delay.nanos = divmod(round(delay * 1e9), 1_000_000_000)
        details.append(hint)
    if isinstance(error, RateLimited):
        quota = error_details_pb2.QuotaFailure.Violation(subject=error.subject, description=message)
        details.append(error_details_pb2.QuotaFailure(violations=[quota]))
    if isinstance(error, UpstreamRefused):
        details.append(
            errors_pb2.UpstreamError(
                status=error.http_status,
                content_type=error.content_type,
                body=error.body[:max_body],
                truncated=len(error.body) > max_body,
                headers=_headers(error, max(MAX_HEADER_BYTES, max_body // 4)),
            )
        )
        message = _upstream_message(error)
    elif isinstance(error, UpstreamBroken) and error.event:
        details.append(
            errors_pb2.UpstreamError(
                content_type="application/json", body=error.event[:max_body], truncated=len(error.event) > max_body
            )
        )
    details.append(receipt)
    return status_pb2.Status(code=code_of(error), message=message, details=[_pack(detail) for detail in details])


def retry_delay(error: RouterError) -> float | None:
    """Seconds after which trying again makes sense; None when it does not, or nobody knows."""
    match error:
        case RateLimited() | QueueFull() | NoHealthyEndpoint() | RequestQuarantined():
            return error.retry_after
        case Draining() | OutOfResources():
            return RETRY_SECONDS
    hint = hint_of(error)
    asked = parse(hint, time.time()) if hint else None
    return None if asked is None else min(asked, MAX_RETRY_SECONDS)


def internal_status(receipt: receipt_pb2.Receipt, trace_id: str = "") -> status_pb2.Status:
    """The status of a bug: no exception text, but an identity to look for in the log, and where the client stands."""
    request_id = receipt.request_id
    named = {"request_id": request_id} | _trace(trace_id)
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata=named)
    known = receipt_pb2.Receipt(request_id=request_id)
    if receipt.HasField("rate_limit"):
        known.rate_limit.CopyFrom(receipt.rate_limit)
    return status_pb2.Status(
        code=code_pb2.INTERNAL,
        message=f"Internal error; the log has it under request id {request_id}.",
        details=[_pack(info), _pack(known)],
    )


def _trace(trace_id: str) -> dict[str, str]:
    return {"trace_id": trace_id} if trace_id else {}


def _upstream_message(error: UpstreamRefused) -> str:
    """What the engine said, for people; its own body is in the detail."""
    said = readable(error.body)
    return _bounded(f"{error.message}: {said}") if said else error.message


def _headers(error: UpstreamRefused, limit: int) -> list[raw_pb2.Header]:
    """The engine's headers that fit, in their order; those that tell when to come back are the last to go."""
    kept = list(error.headers)
    size = sum(len(name) + len(value) for name, value in kept)
    for name, value in sorted(kept, key=_is_hint):
        if size <= limit:
            break
        kept.remove((name, value))
        size -= len(name) + len(value)
    return [raw_pb2.Header(name=name, value=value) for name, value in kept]


def _is_hint(header: tuple[str, str]) -> bool:
    return header[0] == "retry-after" or "ratelimit" in header[0]


def _bounded(message: str) -> str:
    """The message, or its beginning and its end: a name that a client chose may fill the middle."""
    raw = message.encode("utf-8", "replace")
    if len(raw) <= MAX_MESSAGE_BYTES:
        return message
    half = MAX_MESSAGE_BYTES // 2
    return f"{raw[:half].decode('utf-8', 'ignore')} ... {raw[-half:].decode('utf-8', 'ignore')}"


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
