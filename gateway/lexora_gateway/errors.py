"""Failed calls and the facade's own refusals, as HTTP answers in OpenAI's shape."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from lexora_contract.key_text import without_secrets
from lexora_contract.operations import Dialect
from lexora_contract.reasons import REASONS
from lexora_gateway import anthropic_errors
from lexora_gateway.headers import media_type, passthrough_headers, receipt_headers

if TYPE_CHECKING:
    from lexora_contract.port import CallFailed
    from lexora_gateway.asgi_types import HeaderList

JSON = b"application/json"
# Content codings of request bodies, as they are named to clients.
TAKEN_CODINGS = "gzip, deflate, br, zstd"

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

    def __post_init__(self) -> None:
        self.message = without_secrets(self.message)  # it may repeat what a client sent

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
    failure = _own("REQUEST_TOO_LARGE", f"The request body is larger than the {limit} bytes this server takes.")
    failure.headers.append((b"connection", b"close"))
    return failure


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


def shutting_down() -> Failure:
    """503 for a request that is not served any more; its body may not have been read to the end."""
    return _unread(_own("DRAINING", "The gateway is shutting down; try another one."))


def _own(reason: str, message: str) -> Failure:
    """A refusal of the facade's own, for a reason that the router has too."""
    row = REASONS[reason]
    return Failure(row.status, message, row.type, code=row.openai_code)


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
    failure = _own("MODEL_NOT_FOUND", f"The model `{model}` does not exist.")
    failure.param = "model"
    return failure


def stream_expected() -> Failure:
    """502 for a whole answer that comes when a stream has begun, and cannot be given in it."""
    return _own("UPSTREAM_INVALID", "The engine sent a whole answer where a stream was asked for.")


def bug(request_id: str) -> Failure:
    """500 that says only where to look in the log."""
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


def from_failed(failed: CallFailed, request_id: str) -> Failure:
    """The HTTP answer to a failed call; the engine's own error comes back untouched."""
    receipt = receipt_headers(failed.receipt) if failed.receipt is not None else []
    engine = failed.engine
    if engine is not None and engine.status > 0:
        return Failure(
            engine.status,
            failed.message,
            "api_error",
            headers=[*passthrough_headers(engine.headers, failed.receipt), *receipt],
            content_type=media_type(engine.content_type, JSON),
            raw=engine.body,
        )
    failure = bug(request_id) if failed.reason == "INTERNAL" and not failed.message else _from_reason(failed)
    failure.trace_id = failed.trace_id
    failure.headers += [*_retry_after(failed), *receipt]
    if engine is not None and not engine.truncated:
        failure.event = engine.body
    return failure


def _from_reason(failed: CallFailed) -> Failure:
    reason = REASONS[failed.reason]
    message = failed.message or reason.name.replace("_", " ").capitalize() + "."
    failure = Failure(reason.status, message, reason.type, failed.param, reason.openai_code)
    if failure.status == 401:
        failure.headers.append((b"www-authenticate", b"Bearer"))  # RFC 9110, 15.5.2
    return failure


def _retry_after(failed: CallFailed) -> HeaderList:
    if failed.retry_after is None:
        return []
    return [(b"retry-after", b"%d" % max(1, math.ceil(failed.retry_after)))]
