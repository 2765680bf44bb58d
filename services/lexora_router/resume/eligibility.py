"""Which streams may be continued, and what a continuation needs of their requests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from lexora_contract.operations import CHAT, COMPLETIONS

MAX_HOLD = 1024  # characters of a stop string
# Of a /v1/completions that names no limit.
DEFAULT_COMPLETION_TOKENS = 16

_NOTHING = (b"null",)
_OFF = (b"null", b"false")
# With any other value the answer is no plain text that another engine could go on with.
_ONLY: dict[str, tuple[bytes, ...]] = {
    "tools": (b"null", b"[]"),
    "tool_choice": _NOTHING,
    "functions": _NOTHING,
    "function_call": _NOTHING,
    "structured_outputs": _NOTHING,
    "n": (b"null", b"1"),
    "best_of": (b"null", b"1"),
    "use_beam_search": _OFF,
    "logprobs": _OFF,
    "top_logprobs": (b"null", b"0"),
    "prompt_logprobs": _NOTHING,
    "logprob_token_ids": _NOTHING,
    "return_token_offsets": _OFF,
    "routed_experts_prompt_start": _NOTHING,
    "echo": _OFF,
    "suffix": (b"null", b'""'),
    "detokenize": (b"null", b"true"),
    "prompt_embeds": _NOTHING,
    "kv_transfer_params": _NOTHING,
    "ec_transfer_params": _NOTHING,
    "audio": _NOTHING,
}


@dataclass(frozen=True, slots=True)
class ResumeSource:
    """What continuing means for one pool: by token ids, by text where there are none, at how many endpoints by now."""

    ids: bool
    text: bool
    endpoints: Callable[[], int]


@dataclass(frozen=True, slots=True)
class ResumePlan:
    """A stream that may be continued.

    `ids`: the engine is asked for token ids; `asked_ids`: the client asks for them itself. `text`: its text may be continued.
    `hold`: characters that engines hold back for stop strings. `greedy`: no dice are thrown. `fields`: the request.
    """

    path: str
    fields: Mapping[str, msgspec.Raw]
    ids: bool
    asked_ids: bool
    text: bool
    hold: int
    greedy: bool
    max_tokens: int | None
    min_tokens: int | None


class _Format(msgspec.Struct, gc=False):
    type: str = ""


class _Part(msgspec.Struct, gc=False):
    type: str = ""


class _Message(msgspec.Struct, gc=False):
    content: str | list[_Part] | None = None


_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_format = msgspec.json.Decoder(_Format | None).decode
_decode_messages = msgspec.json.Decoder(list[_Message]).decode
_decode_stops = msgspec.json.Decoder(str | list[str] | None).decode
_decode_number = msgspec.json.Decoder(float | None).decode


def plan_resume(path: str, body: bytes, source: ResumeSource) -> ResumePlan | None:
    """How this stream may be continued at such a pool; None where it cannot be."""
    try:
        fields = _decode_fields(body)
        if path not in (CHAT, COMPLETIONS) or not _plain(fields):
            return None
        hold = _hold(fields)
        ids = source.ids and _speaks_ids(path, fields)
        text = source.text and _speaks_text(path, fields)
        if hold is None or not (ids or text):
            return None
        return ResumePlan(
            path=path,
            fields=fields,
            ids=ids,
            asked_ids=_value(fields, "return_token_ids") == b"true",
            text=text,
            hold=hold,
            greedy=_number(fields, "temperature") == 0,
            max_tokens=_max_tokens(path, fields, default=ids),
            min_tokens=_count(fields, "min_tokens"),
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # a request of a shape that is unknown here


def _plain(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether the answer is one plain text."""
    for name in fields:
        if name.startswith("guided_") and _value(fields, name) != b"null":
            return False
        if name in _ONLY and _value(fields, name) not in _ONLY[name]:
            return False
    if "response_format" not in fields:
        return True
    form = _decode_format(fields["response_format"])
    return form is None or form.type == "text"


def _hold(fields: Mapping[str, msgspec.Raw]) -> int | None:
    """Characters held back for stop strings; None where that is unknown."""
    stops = _decode_stops(fields["stop"]) if "stop" in fields else None
    if not stops:
        return 0
    hold = max(map(len, [stops] if isinstance(stops, str) else stops)) - 1
    # Where the stop string is part of the answer some engines send its beginning before they know its end.
    included = _value(fields, "include_stop_str_in_output") not in (b"", *_OFF)
    return None if hold > MAX_HOLD or included else max(hold, 0)


def _speaks_ids(path: str, fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether token ids say all that the prompt says: images and sounds have none."""
    if path == COMPLETIONS:
        return _one_prompt(_value(fields, "prompt"))
    messages = _value(fields, "messages")
    if b'"type"' not in messages:
        return True
    contents = (message.content for message in _decode_messages(messages))
    return all(part.type == "text" for content in contents if isinstance(content, list) for part in content)


def _one_prompt(prompt: bytes) -> bool:
    """A text, or the token ids of one."""
    return prompt.startswith(b'"') or prompt[1:].lstrip()[:1].isdigit()


def _speaks_text(path: str, fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether text can be put behind the prompt."""
    if path == COMPLETIONS:
        return _value(fields, "prompt").startswith(b'"')
    return _value(fields, "continue_final_message") in (b"", *_OFF)


def _max_tokens(path: str, fields: Mapping[str, msgspec.Raw], *, default: bool) -> int | None:
    """Tokens that the answer may have; None for as many as there is room for."""
    if path == CHAT:
        newer = _count(fields, "max_completion_tokens")
        return newer if newer is not None else _count(fields, "max_tokens")
    return DEFAULT_COMPLETION_TOKENS if default and "max_tokens" not in fields else _count(fields, "max_tokens")


def _number(fields: Mapping[str, msgspec.Raw], name: str) -> float | None:
    return _decode_number(fields[name]) if name in fields else None


def _count(fields: Mapping[str, msgspec.Raw], name: str) -> int | None:
    value = _number(fields, name)
    return None if value is None else int(value)


def _value(fields: Mapping[str, msgspec.Raw], name: str) -> bytes:
    """The value's JSON; empty when it is absent."""
    return bytes(fields[name]).strip() if name in fields else b""
