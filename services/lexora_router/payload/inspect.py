"""What the router decides on, read from a request's body once.

The body itself stays bytes: unknown fields, big integers, explicit nulls and the order of fields reach the engine as
the client wrote them. Of a key that occurs twice the last one counts, as in Python's json.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import TypeAdapter, ValidationError

from lexora_contract.operations import COMPLETIONS, OPERATIONS, operation_of
from lexora_router.errors import InvalidRequest
from lexora_router.payload.fields import Fields, check_model
from lexora_router.payload.json_object import check_utf8, is_null, malformed, object_of, opens, value_of
from lexora_router.payload.user_names import UserNames, bounded, text_of

_INTEGERS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "n", "priority")
# One of these must be there, as the path's row says; what is in them is for the engine to judge.
_REQUIRED = frozenset(name for row in OPERATIONS.values() for name in row.required)
_ARRAY = ord("[")
_UNREAD = _REQUIRED | {"safety_identifier", "metadata", "prompt_cache_key"}


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class _Decided(UserNames, gc=False):
    model: str | None = None
    stream: bool | None = None
    prompt_cache_key: msgspec.Raw = msgspec.Raw()
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None
    priority: int | None = None
    stream_options: _StreamOptions | None = None
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()


_presence = [(name, msgspec.Raw, msgspec.Raw()) for name in sorted(_REQUIRED - set(_Decided.__struct_fields__))]
_Wire: type[_Decided] = msgspec.defstruct("_Wire", _presence, bases=(_Decided,), gc=False)  # type: ignore[assignment]
_wire = msgspec.json.Decoder(_Wire)
_encode = msgspec.json.Encoder().encode
_READ = frozenset(_Wire.__struct_fields__) - _REQUIRED
# vLLM reads its requests with pydantic in lax mode: "16", 16.0 and true are integers to it, "yes" and 1 are booleans.
_booleans = TypeAdapter(bool)
_integers = TypeAdapter(int)


def inspect_json(path: str, body: bytes) -> Fields:
    """Read the fields of a JSON body that goes to `path`.

    Raises InvalidRequest, with `param` where a field is to blame: malformed or non-UTF-8 JSON, not an object, nested
    too deeply, a field of the wrong type, or a field missing that `path` needs.
    """
    check_utf8(body)
    wire = _decoded(body)
    _check_required(path, wire)
    return _fields(wire)


def inspect_object(body: Mapping[str, Any]) -> Fields:
    """The same of a body before it is encoded, whose prompt is known to be right; values may be msgspec.Raw.

    Raises InvalidRequest for a field of the wrong type.
    """
    wire = _decoded(_encode({name: value for name, value in body.items() if name in _READ}))
    if wire.model is not None:
        check_model(wire.model)
    return _fields(wire)


def _decoded(body: bytes) -> _Decided:
    try:
        return _wire.decode(body)
    except msgspec.ValidationError:
        return _checked(body)  # a wrong type: say which, unless a later duplicate of the key mends it
    except msgspec.DecodeError as error:
        raise malformed(body, error) from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None


def _fields(wire: _Decided) -> Fields:
    return Fields(
        model=wire.model,
        stream=wire.stream is True,
        user=wire.named() or None,
        prompt_cache_key=bounded(text_of(wire.prompt_cache_key)) if wire.prompt_cache_key else "",
        max_tokens=most if (most := wire.max_completion_tokens) is not None else _other_limit(wire),
        n=wire.n,
        priority=wire.priority,
        include_usage=wire.stream_options is not None and wire.stream_options.include_usage is True,
    )


def _checked(body: bytes) -> _Decided:
    """Read the fields one by one, as vLLM takes them; raises InvalidRequest for the first whose type is wrong."""
    fields = object_of(body)
    wire = _Wire()
    for name in fields.keys() & _UNREAD:
        setattr(wire, name, fields[name])
    wire.model = _text(fields, "model")
    wire.stream = _boolean(fields, "stream")
    wire.user = _text(fields, "user")
    for name in _INTEGERS:
        setattr(wire, name, _integer(fields, name))
    options = fields.get("stream_options")
    if options is not None and not is_null(options):
        wire.stream_options = _StreamOptions(
            _boolean(object_of(bytes(options), "stream_options"), "include_usage", "stream_options.")
        )
    return wire


def _text(fields: dict[str, msgspec.Raw], name: str) -> str | None:
    value = value_of(fields, name)
    if value is None or isinstance(value, str):
        return value
    raise InvalidRequest(f"{name} must be a string", name)


def _boolean(fields: dict[str, msgspec.Raw], name: str, within: str = "") -> bool | None:
    value = value_of(fields, name)
    try:
        return None if value is None else _booleans.validate_python(value)
    except ValidationError:
        raise InvalidRequest(f"{within}{name} must be a boolean", within + name) from None


def _integer(fields: dict[str, msgspec.Raw], name: str) -> int | None:
    value = value_of(fields, name)
    try:
        return None if value is None else _integers.validate_python(value)
    except ValidationError:
        raise InvalidRequest(f"{name} must be an integer", name) from None


def _check_required(path: str, wire: _Decided) -> None:
    if wire.model is not None:
        check_model(wire.model)
    messages = wire.messages and memoryview(wire.messages)[0]
    if messages and messages not in b"[n":  # n: null
        raise InvalidRequest("messages must be an array", "messages")
    required = operation_of(path).required
    if not required:
        return
    if not wire.model:
        raise InvalidRequest("model is missing", "model")
    if path == COMPLETIONS and not _absent(wire.prompt) and not opens(wire.prompt, b'["'):
        raise InvalidRequest("prompt must be a string or an array", "prompt")
    if messages == _ARRAY and "messages" in required:
        return
    for name in required:
        if not _absent(getattr(wire, name)):
            return
    raise InvalidRequest(f"{required[0]} is missing", required[0])


def _absent(raw: msgspec.Raw) -> bool:
    return not raw or is_null(raw)


def _other_limit(wire: _Decided) -> int | None:
    return wire.max_output_tokens if wire.max_tokens is None else wire.max_tokens
