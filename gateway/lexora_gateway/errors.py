"""google.rpc.Status and the facade's own refusals, as HTTP answers in OpenAI's shape."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec
from google.rpc import code_pb2

from lexora_contract.operations import Dialect
from lexora_gateway import anthropic_errors
from lexora_gateway.headers import media_type, passthrough_headers, receipt_headers
from lexora_gateway.status_details import Details, details_of

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status

    from lexora_gateway.asgi_types import HeaderList

JSON = b"application/json"
# Content codings of request bodies, as they are named to clients.
TAKEN_CODINGS = "gzip, deflate, br, zstd"

# ErrorInfo.reason -> HTTP status, type, code.
_REASONS: dict[str, tuple[int, str, str | None]] = {
    "INVALID_REQUEST": (400, "invalid_request_error", None),
    "UNSUPPORTED_BY_BACKEND": (400, "invalid_request_error", "unsupported_by_backend"),
    "UNAUTHENTICATED": (401, "authentication_error", "unauthenticated"),
    "PERMISSION_DENIED": (403, "permission_error", "permission_denied"),
    "MODEL_NOT_FOUND": (404, "not_found_error", "model_not_found"),
    "NOT_FOUND": (404, "not_found_error", "not_found"),
    "REQUEST_TOO_LARGE": (413, "invalid_request_error", "request_too_large"),
    "CLIENT_STALLED": (499, "invalid_request_error", "client_stalled"),
    "RATE_LIMITED": (429, "rate_limit_error", "rate_limited"),
    "QUEUE_FULL": (429, "rate_limit_error", "queue_full"),
    "CANCELLED": (499, "api_error", "cancelled"),
    "UPSTREAM_UNREACHABLE": (502, "api_error", "upstream_unreachable"),
    "UPSTREAM_BROKEN": (502, "api_error", "upstream_broken"),
    "UPSTREAM_INVALID": (502, "api_error", "upstream_invalid"),
    "CLASSIFIER_DISABLED": (503, "api_error", "classifier_disabled"),
    "NO_HEALTHY_ENDPOINT": (503, "api_error", "no_healthy_endpoint"),
    "OUT_OF_RESOURCES": (503, "api_error", "out_of_resources"),
    "REQUEST_QUARANTINED": (503, "api_error", "request_quarantined"),
    "DRAINING": (503, "api_error", "draining"),
    "UPSTREAM_TIMEOUT": (504, "api_error", "upstream_timeout"),
    "DEADLINE_EXCEEDED": (504, "api_error", "deadline_exceeded"),
    "UNIMPLEMENTED": (501, "server_error", "unimplemented"),
    "INTERNAL": (500, "server_error", None),
}
# gRPC code -> the reason it stands for, when the status names none that is known here.
_CODES: dict[int, str] = {
    code_pb2.CANCELLED: "CANCELLED",
    code_pb2.INVALID_ARGUMENT: "INVALID_REQUEST",
    code_pb2.DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
    code_pb2.NOT_FOUND: "NOT_FOUND",
    code_pb2.PERMISSION_DENIED: "PERMISSION_DENIED",
    code_pb2.RESOURCE_EXHAUSTED: "RATE_LIMITED",
    code_pb2.FAILED_PRECONDITION: "INVALID_REQUEST",
    code_pb2.OUT_OF_RANGE: "INVALID_REQUEST",
    code_pb2.UNIMPLEMENTED: "UNIMPLEMENTED",
    code_pb2.UNAVAILABLE: "NO_HEALTHY_ENDPOINT",
    code_pb2.UNAUTHENTICATED: "UNAUTHENTICATED",
}
# A plain HTTP status -> the reason it stands for, for the facade's own routes.
_HTTP: dict[int, tuple[str, str | None]] = {
    404: ("not_found_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    426: ("invalid_request_error", "upgrade_required"),
    408: ("invalid_request_error", "request_timeout"),
    415: ("invalid_request_error", "unsupported_content_encoding"),
    431: ("invalid_request_error", "request_head_too_large"),
}


@dataclass(slots=True)
class Failure:
    """An answer that is an error: OpenAI's four fields, and the trace if there is one, or the engine's own body in `raw`.

    `event` is the payload of an error that the engine itself sent inside a stream, when all of it is known.
    """

    status: int
    message: str
    type: str
    param: str | None = None
    code: str | None = None
    headers: HeaderList = field(default_factory=list)
    content_type: bytes = JSON
    raw: bytes | None = None
    event: bytes | None = None
    trace_id: str = ""

    def error(self) -> dict[str, str | None]:
        """OpenAI's error object."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return error | {"trace_id": self.trace_id} if self.trace_id else error

    def body(self) -> bytes:
        """The body of the answer."""
        return self.raw if self.raw is not None else msgspec.json.encode({"error": self.error()})


class Refused(Exception):
    """The facade answers this request with a failure of its own."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def invalid(message: str, param: str | None = None) -> Failure:
    """400: the request is malformed; `param` names the field."""
    return Failure(400, message, "invalid_request_error", param)


def too_large(limit: int) -> Failure:
    """413, after which the connection is closed because the rest of the body is not read."""
    status, kind, code = _REASONS["REQUEST_TOO_LARGE"]
    message = f"The request body is larger than the {limit} bytes this server takes."
    return Failure(status, message, kind, code=code, headers=[(b"connection", b"close")])


def unsupported_coding(given: str) -> Failure:
    """415 for a body in a content coding that is not taken; names those that are, and closes, because it is not read."""
    message = f"The content encoding `{given[:100]}` is not taken; send the body as it is, or as one of: {TAKEN_CODINGS}."
    failure = plain(415, message)
    failure.param = "content-encoding"
    failure.headers += [(b"accept-encoding", TAKEN_CODINGS.encode()), (b"connection", b"close")]
    return failure


def too_many_bytes(owner: str, most: int) -> Failure:
    """429 for a body whose owner has too many bytes of requests under way to this server."""
    name = owner.replace(":", " ", 1)[:200]
    message = f"Request bodies of more than {most} bytes are on their way from {name}; send fewer at a time."
    return _unread(Failure(429, message, "rate_limit_error", code="too_many_buffered_bytes"))


def overloaded(most: int) -> Failure:
    """503 for a body that does not fit beside those that are being read."""
    message = f"This server is reading request bodies of {most} bytes (server.max_buffered_bytes); try again shortly."
    return _unread(Failure(503, message, "api_error", code="overloaded"))


def too_many_connections(bound: str) -> Failure:
    """503 for a connection above the bound of that name."""
    message = f"This server has as many connections as it may have ({bound}), none of them idle; try again in a second."
    return _unread(Failure(503, message, "api_error", code="too_many_connections"))


def _unread(failure: Failure) -> Failure:
    """Refused before its body was read to the end: the connection is closed; there may be room in a second."""
    failure.headers += [(b"retry-after", b"1"), (b"connection", b"close")]
    return failure


def origin_not_allowed(origin: str) -> Failure:
    """403 for a page that asks whether it may call."""
    message = f"Pages of {origin[:200]} may not call this server: it is not among server.cors.allow_origins."
    return Failure(403, message, "permission_error", "origin", "origin_not_allowed")


def request_timeout(message: str) -> Failure:
    """408, after which the connection is closed because the rest of the request is not read."""
    failure = plain(408, message)
    failure.headers.append((b"connection", b"close"))
    return failure


def model_not_found(model: str) -> Failure:
    """404 for a model that is not listed."""
    status, kind, code = _REASONS["MODEL_NOT_FOUND"]
    return Failure(status, f"The model `{model}` does not exist.", kind, "model", code)


def stream_expected() -> Failure:
    """502 for a whole answer that comes when a stream has begun, and cannot be given in it."""
    status, kind, code = _REASONS["UPSTREAM_INVALID"]
    return Failure(status, "The engine sent a whole answer where a stream was asked for.", kind, code=code)


def bug(request_id: str) -> Failure:
    """500 that tells nothing but where to look in the log."""
    return Failure(500, f"Internal error; the log has it under request id {request_id}.", "server_error")


def plain(status: int, message: str) -> Failure:
    """The OpenAI shape of a bare HTTP status, such as 404 and 405."""
    kind, code = _HTTP.get(status, ("invalid_request_error" if status < 500 else "server_error", None))
    return Failure(status, message, kind, code=code)


def in_dialect(dialect: Dialect, failure: Failure, request_id: str) -> Failure:
    """The failure as clients of a dialect read it; an engine's own stays as it is."""
    if dialect is not Dialect.ANTHROPIC or failure.raw is not None:
        return failure
    body = anthropic_errors.error(failure) | {"request_id": request_id}
    return replace(failure, status=anthropic_errors.status_of(failure), raw=msgspec.json.encode(body))


def from_status(status: Status, request_id: str) -> Failure:
    """The HTTP answer to a call that ended in `status`; the engine's own error comes back untouched."""
    details = details_of(status)
    receipt = receipt_headers(details.receipt) if details.receipt is not None else []
    upstream = details.upstream
    if upstream is not None and upstream.status > 0:
        own = tuple((each.name, each.value) for each in upstream.headers)
        return Failure(
            upstream.status,
            status.message,
            "api_error",
            headers=[
                *passthrough_headers(own, details.receipt),
                *receipt,
            ],
            content_type=media_type(upstream.content_type, JSON),
            raw=upstream.body,
        )
    failure = _from_reason(status, details, request_id)
    failure.trace_id = details.trace_id
    failure.headers += [*_retry_after(details), *receipt]
    if upstream is not None and not upstream.truncated:
        failure.event = upstream.body
    return failure


def _from_reason(status: Status, details: Details, request_id: str) -> Failure:
    reason = details.reason if details.reason in _REASONS else _CODES.get(status.code)
    if reason is None or (reason == "INTERNAL" and not status.message):
        # The text of an unforeseen status may be an exception's.
        return bug(request_id)
    http_status, kind, code = _REASONS[reason]
    message = status.message or details.quota or reason.replace("_", " ").capitalize() + "."
    return Failure(http_status, message, kind, details.param, code)


def _retry_after(details: Details) -> HeaderList:
    if details.retry_after is None:
        return []
    return [(b"retry-after", b"%d" % max(1, math.ceil(details.retry_after)))]
