"""Chunks of OpenAI's streams: read, written, and freed of token ids that the client did not ask for."""

from typing import Annotated, Any

import msgspec

from lexora_router.errors import UpstreamInvalid
from lexora_router.payload.event_stream import data_of
from lexora_router.payload.lenient_json import lenient

DONE = b"data: [DONE]\n\n"

# As array("I") holds them.
TokenId = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]

_IDS = (b'"token_ids":[', b'"prompt_token_ids":[')
_ID_KEYS = ("token_ids", "prompt_token_ids")


class Delta(msgspec.Struct, gc=False):
    """What a chat chunk adds to the message."""

    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class StreamedChoice(msgspec.Struct, gc=False):
    """The one choice of a chunk, of chat (`delta`) or of completions (`text`)."""

    index: int = 0
    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    prompt_token_ids: list[TokenId] | None = None
    token_ids: list[TokenId] | None = None


class Chunk(msgspec.Struct, gc=False):
    """What is looked at in a chunk."""

    choices: list[StreamedChoice] = []
    prompt_token_ids: list[TokenId] | None = None


_decode_chunk = lenient(msgspec.json.Decoder(Chunk).decode)
_decode_object = lenient(msgspec.json.Decoder(dict[str, Any]).decode)
_encode = msgspec.json.Encoder().encode


def read_chunk(data: bytes) -> Chunk | None:
    """The chunk, None for JSON of another shape; raises UpstreamInvalid for what is no JSON."""
    try:
        return _decode_chunk(data)
    except msgspec.ValidationError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _not_json() from None


def read_object(data: bytes) -> dict[str, Any]:
    """The chunk with all its fields; raises UpstreamInvalid when it is no JSON object."""
    try:
        return _decode_object(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _not_json() from None


def write(chunk: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: %b\n\n" % _encode(chunk)


def without_ids(event: bytes) -> bytes:
    """The event as the engine would have sent it unasked: null in place of token ids.

    These bytes are a key wherever they stand: inside a string the quotes would be escaped.
    """
    found = False
    for mark in _IDS:
        at = event.find(mark)
        if at >= 0:
            found = True
            start = at + len(mark) - 1
            event = event[:start] + b"null" + event[event.index(b"]", start) + 1 :]
    return event if found else _rewritten(event)


def _rewritten(event: bytes) -> bytes:
    """The same for an engine that writes its JSON in another style."""
    chunk = read_object(data_of(event))
    for part in (chunk, *chunk.get("choices", ())):
        part |= {key: None for key in _ID_KEYS if key in part}
    return write(chunk)


def _not_json() -> UpstreamInvalid:
    return UpstreamInvalid("The engine sent an event that is not JSON.")


def choice_text(choice: StreamedChoice) -> tuple[str, bool]:
    """The text of a choice, and whether it is reasoning."""
    delta = choice.delta
    if delta is None:
        return choice.text or "", False
    if delta.content:
        return delta.content, False
    thought = delta.reasoning or delta.reasoning_content or ""
    return thought, bool(thought)
