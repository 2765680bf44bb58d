"""Terminal error events of a stream, in the dialect of the path."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from lexora_contract.operations import Dialect, operation_of
from lexora_gateway.errors import Failure

ErrorEvent = Callable[[Failure], bytes]

_NEWLINE = re.compile(rb"\r\n|\r|\n")


def openai_error(failure: Failure) -> bytes:
    """`data: {"error": {...}}`."""
    return _event(b"", failure, {"error": failure.error()})


def messages_error(failure: Failure) -> bytes:
    """The error event of /v1/messages."""
    error = {"type": "api_error", "message": failure.message}
    return _event(b"event: error\n", failure, {"type": "error", "error": error})


def responses_error(failure: Failure) -> bytes:
    """The error event of /v1/responses."""
    event = {"type": "error", "code": failure.code, "message": failure.message, "param": None, "sequence_number": 0}
    return _event(b"event: error\n", failure, event)


def error_event_of(path: str) -> ErrorEvent:
    """The dialect that clients of a path understand."""
    return _DIALECTS.get(operation_of(path).dialect, openai_error)


def data_event(value: Any) -> bytes:
    """`value` as JSON in one `data:` line."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _event(prefix: bytes, failure: Failure, own: Any) -> bytes:
    # The engine's own words for its failure come first. A newline inside them would end the event's data.
    payload = failure.event or _object(failure.raw) or msgspec.json.encode(own)
    return prefix + b"data: " + _NEWLINE.sub(b"\ndata: ", payload) + b"\n\n"


def _object(body: bytes | None) -> bytes | None:
    """The body of an engine's answer if it is a JSON object, which a client of events can read."""
    try:
        return body if body and isinstance(msgspec.json.decode(body), dict) else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


_DIALECTS: dict[Dialect, ErrorEvent] = {Dialect.ANTHROPIC: messages_error, Dialect.RESPONSES: responses_error}
