"""Why a call fails: one row per reason, with everything that its name decides on both wires.

Codes are gRPC's (google/rpc/code.proto). Types and codes of an HTTP answer are OpenAI's where it has them:
https://platform.openai.com/docs/guides/error-codes.
"""

from dataclasses import dataclass

from google.rpc import code_pb2


@dataclass(frozen=True, slots=True)
class Reason:
    """One row: gRPC code, HTTP status, and `type` and `code` of OpenAI's error object."""

    name: str
    code: "code_pb2.Code.ValueType"
    status: int
    type: str
    openai_code: str | None


_ROWS = (
    Reason("INVALID_REQUEST", code_pb2.INVALID_ARGUMENT, 400, "invalid_request_error", None),
    Reason("UNSUPPORTED_BY_BACKEND", code_pb2.INVALID_ARGUMENT, 400, "invalid_request_error", "unsupported_by_backend"),
    Reason("UNAUTHENTICATED", code_pb2.UNAUTHENTICATED, 401, "authentication_error", "unauthenticated"),
    Reason("PERMISSION_DENIED", code_pb2.PERMISSION_DENIED, 403, "permission_error", "permission_denied"),
    Reason("MODEL_NOT_FOUND", code_pb2.NOT_FOUND, 404, "not_found_error", "model_not_found"),
    Reason("NOT_FOUND", code_pb2.NOT_FOUND, 404, "not_found_error", "not_found"),
    Reason("REQUEST_TOO_LARGE", code_pb2.RESOURCE_EXHAUSTED, 413, "invalid_request_error", "request_too_large"),
    Reason("RATE_LIMITED", code_pb2.RESOURCE_EXHAUSTED, 429, "rate_limit_error", "rate_limited"),
    Reason("TOO_MANY_ATTEMPTS", code_pb2.RESOURCE_EXHAUSTED, 429, "rate_limit_error", "too_many_attempts"),
    Reason("QUEUE_FULL", code_pb2.RESOURCE_EXHAUSTED, 429, "rate_limit_error", "queue_full"),
    Reason("CLIENT_STALLED", code_pb2.ABORTED, 499, "invalid_request_error", "client_stalled"),
    Reason("CANCELLED", code_pb2.CANCELLED, 499, "api_error", "cancelled"),
    Reason("INTERNAL", code_pb2.INTERNAL, 500, "server_error", None),
    Reason("UNIMPLEMENTED", code_pb2.UNIMPLEMENTED, 501, "server_error", "unimplemented"),
    # The engine's own answer goes out as it is; this is for one that was lost on its way.
    Reason("UPSTREAM_ERROR", code_pb2.UNAVAILABLE, 502, "api_error", "upstream_error"),
    Reason("UPSTREAM_UNREACHABLE", code_pb2.UNAVAILABLE, 502, "api_error", "upstream_unreachable"),
    Reason("UPSTREAM_INVALID", code_pb2.UNAVAILABLE, 502, "api_error", "upstream_invalid"),
    Reason("UPSTREAM_BROKEN", code_pb2.UNAVAILABLE, 502, "api_error", "upstream_broken"),
    Reason("CLASSIFIER_DISABLED", code_pb2.UNAVAILABLE, 503, "api_error", "classifier_disabled"),
    Reason("NO_HEALTHY_ENDPOINT", code_pb2.UNAVAILABLE, 503, "api_error", "no_healthy_endpoint"),
    Reason("OUT_OF_RESOURCES", code_pb2.UNAVAILABLE, 503, "api_error", "out_of_resources"),
    Reason("REQUEST_QUARANTINED", code_pb2.UNAVAILABLE, 503, "api_error", "request_quarantined"),
    Reason("ACCESS_UNAVAILABLE", code_pb2.UNAVAILABLE, 503, "api_error", "access_unavailable"),
    Reason("DRAINING", code_pb2.UNAVAILABLE, 503, "api_error", "draining"),
    Reason("UPSTREAM_TIMEOUT", code_pb2.DEADLINE_EXCEEDED, 504, "api_error", "upstream_timeout"),
    Reason("DEADLINE_EXCEEDED", code_pb2.DEADLINE_EXCEEDED, 504, "api_error", "deadline_exceeded"),
)
REASONS = {row.name: row for row in _ROWS}

# The reason that a gRPC code stands for when nothing else is known of a failure. The text that comes with any other code may be
# an exception's.
REASON_OF_CODE = {
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

# The code of an engine's own answer, by its HTTP status.
_ENGINE_CODES = {
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


def engine_code(status: int) -> "code_pb2.Code.ValueType":
    """The gRPC code of an engine's answer with this HTTP status, 400 or above."""
    return _ENGINE_CODES.get(status, code_pb2.FAILED_PRECONDITION if status < 500 else code_pb2.UNAVAILABLE)
