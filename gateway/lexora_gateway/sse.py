"""Terminal error events of a stream, in the dialect of the path."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from lexora_contract.operations import Dialect
from lexora_gateway import anthropic_errors
from lexora_gateway.errors import Failure

_NEWLINE = re.compile(rb"\r\n|\r|\n")


def openai_error(failure: Failure) -> bytes:
    """`data: {"error": {...}}`."""
    return _event(b"", failure, {"error": failure.error()})


def messages_error(failure: Failure) -> bytes:
    """The error event of /v1/messages."""
    return _event(b"event: error\n", failure, anthropic_errors.error(failure))


def responses_error(failure: Failure) -> bytes:
    """The error event of /v1/responses."""
    event = {"type": "error", "code": failure.code, "message": failure.message, "param": None, "sequence_number": 0}
    return _event(b"event: error\n", failure, event)


def error_event(dialect: Dialect, failure: Failure) -> bytes:
    """The event in the dialect that the stream's clients understand."""
    return _DIALECTS.get(dialect, openai_error)(failure)


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


_DIALECTS: dict[Dialect, Callable[[Failure], bytes]] = {Dialect.ANTHROPIC: messages_error, Dialect.RESPONSES: responses_error}
