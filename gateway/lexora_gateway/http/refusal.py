"""Answers to what is no request: what a parser or a check refused, as the bytes that go out before the connection closes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from httptools import HttpParserCallbackError

from lexora_gateway.errors import Failure, Refused, invalid, plain

if TYPE_CHECKING:
    from httptools import HttpParserError

    from lexora_gateway.asgi_types import HeaderList

_log = structlog.get_logger("lexora_gateway")

MAX_HEAD_BYTES = 64 * 1024
_PREFACE_SEEN = "Pause on PRI/Upgrade"  # the parser's words for the first line of HTTP/2


def head_too_large() -> Failure:
    """431."""
    return plain(431, f"The request's head, trailers or chunk extensions are larger than {MAX_HEAD_BYTES} bytes.")


def failure_of(error: HttpParserError) -> Failure:
    """What a callback refused, 500 for a bug in one, else 400 with what the parser says."""
    if not isinstance(error, HttpParserCallbackError):
        if str(error) == _PREFACE_SEEN:
            return plain(505, "HTTP/2 is not spoken here; use HTTP/1.1. gRPC has a port of its own.")
        return invalid(f"Invalid HTTP request received: {error}.")
    cause = error.__context__
    if isinstance(cause, Refused):
        return cause.failure
    _log.error("bug", exc_info=cause)
    return plain(500, "Internal error; the log has it.")


def rest_of_answer(failure: Failure, request_id: str, added: HeaderList) -> bytes:
    """All that follows the first lines of the last answer on a connection; `added` are headers of its own."""
    body = failure.body()
    headers = [
        (b"content-type", failure.content_type),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
        *failure.headers,
        *added,
        (b"connection", b"close"),
    ]
    return b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n" + body
