"""The name of the model in an answer: the one that the client asked for, where the engine has another for it.

Only the value changes, in place: the answer's own `model`, that of the `response` in an event of /v1/responses, and that of the
`message` in Anthropic's `message_start`. The same word anywhere else in an answer is its content.
"""

import re
from itertools import islice

import msgspec

from lexora_router.handler import Emit, Event, Frames, Reply
from lexora_router.lenient_json import lenient

# Objects inside an answer may have a field of this name as well.
MAX_CANDIDATES = 16
_MARK = b'"model"'
# Inside a string the quotes would be escaped, so this is always a field; whose, decoding tells.
_FIELD = re.compile(rb'[{,]\s*+"model"\s*+:\s*+("(?:[^"\\]|\\.)*+")', re.DOTALL)


class _Inner(msgspec.Struct, gc=False):
    model: str | None = None


class _Outer(msgspec.Struct, gc=False):
    model: str | None = None
    response: _Inner | None = None
    message: _Inner | None = None


_decode = lenient(msgspec.json.Decoder(_Outer).decode)


def naming(model: str, emit: Emit) -> Emit:
    """An emit whose answers name this model."""

    async def named(event: Event) -> None:
        if isinstance(event, Frames):
            event = Frames(name_in_events(event.data, model))
        elif isinstance(event, Reply):
            event = Reply(event.head, name_in(event.body, model))
        await emit(event)

    return named


def name_in_events(block: bytes, model: str) -> bytes:
    """The same whole events with this name in each that names a model."""
    if _MARK not in block:
        return block
    return b"".join(
        line[:5] + name_in(line[5:], model) if _MARK in line and line.startswith(b"data:") else line
        for line in block.splitlines(keepends=True)
    )


def name_in(body: bytes, model: str) -> bytes:
    """The same JSON with this name; untouched where it names no model, and where it is no JSON."""
    if _MARK not in body:
        return body
    before = _named(body)
    if before in (None, model):
        return body
    value = msgspec.json.encode(model)
    for found in islice(_FIELD.finditer(body), MAX_CANDIDATES):
        changed = b"".join((body[: found.start(1)], value, body[found.end(1) :]))
        if _named(changed) == model:
            return changed
    return body


def _named(body: bytes) -> str | None:
    try:
        outer = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    inner = outer.response or outer.message
    return outer.model if outer.model is not None or inner is None else inner.model
