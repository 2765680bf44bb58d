"""What the router decides on, read from a request's body once, and the few changes it makes to one.

The body itself stays bytes: unknown fields, big integers, explicit nulls and the order of fields reach the engine as
the client wrote them. Of a key that occurs twice the last one counts, as in Python's json.
"""

import json
import logging
import re
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import TypeAdapter, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from lexora_contract.operations import COMPLETIONS, operation_of
from lexora_router.errors import InvalidRequest
from lexora_router.payload.user_names import Names, bounded, text_of

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_MODEL_CHARS = 1024
MAX_USER_CHARS = 1024  # of a form
MAX_FORM_PARTS = 256
MAX_CONTENT_TYPE_CHARS = 1024
MAX_DISPOSITION_BYTES = 1024
MAX_PADDING = 64

_INTEGERS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "n", "priority")
_UNREAD = frozenset(["messages", "prompt", "input", "prompt_embeds", "safety_identifier", "metadata", "prompt_cache_key"])
_TRUE = frozenset(("true", "1", "yes", "on", "t", "y"))
_FALSE = frozenset(("false", "0", "no", "off", "f", "n", ""))
_SCANNED_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"
# Everything up to the first \u escape that is half of a surrogate pair, then that escape.
_HALF_PAIR = re.compile(
    rb"(?:[^\\]++|\\[^u]|\\u(?![dD][89a-fA-F])|\\u[dD][89abAB]..\\u[dD][c-fC-F])*+(\\u[dD][89a-fA-F])", re.DOTALL
)


class Fields(msgspec.Struct, kw_only=True, gc=False):
    """The fields that a decision needs; None where the client said nothing or null. Token counts are tokens."""

    model: str | None = None
    stream: bool = False
    user: str | None = None
    prompt_cache_key: str = ""
    max_tokens: int | None = None
    n: int | None = None
    priority: int | None = None
    include_usage: bool = False


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class _Wire(Names, gc=False):
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
    input: msgspec.Raw = msgspec.Raw()
    prompt_embeds: msgspec.Raw = msgspec.Raw()


# The parser logs a warning for each malformed form; the client gets that as its answer.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

_wire = msgspec.json.Decoder(_Wire)
_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])
_values = msgspec.json.Decoder()
# vLLM reads its requests with pydantic in lax mode: "16", 16.0 and true are integers to it, "yes" and 1 are booleans.
_booleans = TypeAdapter(bool)
_integers = TypeAdapter(int)
_encoder = msgspec.json.Encoder()


def inspect_json(path: str, body: bytes) -> Fields:
    """Read the fields of a JSON body that goes to `path`.

    Raises InvalidRequest, with `param` where a field is to blame: malformed or non-UTF-8 JSON, not an object, nested
    too deeply, a field of the wrong type, or a field missing that `path` needs.
    """
    _check_utf8(body)
    try:
        wire = _wire.decode(body)
    except msgspec.ValidationError:
        wire = _checked(body)  # a wrong type: say which, unless a later duplicate of the key mends it
    except msgspec.DecodeError as error:
        raise _malformed(body, error) from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None
    _check_required(path, wire)
    return Fields(
        model=wire.model,
        stream=wire.stream is True,
        user=wire.named() or None,
        prompt_cache_key=bounded(text_of(wire.prompt_cache_key)),
        max_tokens=_first(wire.max_completion_tokens, wire.max_tokens, wire.max_output_tokens),
        n=wire.n,
        priority=wire.priority,
        include_usage=wire.stream_options is not None and wire.stream_options.include_usage is True,
    )


def without_bom(body: bytes) -> bytes:
    """The body without a byte order mark before its JSON, which not every engine takes."""
    return body[len(_BOM) :] if body.startswith(_BOM) else body


def is_form(content_type: str) -> bool:
    """Whether a body of this type is a multipart one: the letters' case says nothing (RFC 9110, section 8.3.1)."""
    return content_type[:10].lower() == "multipart/"


def with_model(body: bytes, model: str) -> bytes:
    """The same JSON object asking for another model; every other value keeps its bytes."""
    fields: dict[str, Any] = _object(body)
    fields["model"] = model
    return _encoder.encode(fields)


def with_priority(body: bytes, priority: int) -> bytes:
    """The same JSON object with this priority, in the engine's own polarity; every other value keeps its bytes."""
    fields: dict[str, Any] = _object(body)
    fields["priority"] = priority
    return _encoder.encode(fields)


def without_priority(body: bytes) -> bytes:
    """The same JSON object without a priority; every other value keeps its bytes."""
    fields = _object(body)
    fields.pop("priority", None)
    return _encoder.encode(fields)


def with_stream_usage(body: bytes) -> bytes:
    """The same JSON object with `stream_options.include_usage` true; untouched where the client asked for it already.

    `continuous_usage_stats` is dropped when the client did not ask for usage: it would put usage into every event.
    """
    fields: dict[str, Any] = _object(body)
    raw = fields.get("stream_options")
    if raw is None:
        separator = b"," if fields else b""
        return body.replace(b"{", b'{"stream_options":{"include_usage":true}' + separator, 1)
    options: dict[str, Any] = {} if _is_null(raw) else _object(bytes(raw), "stream_options")
    if "include_usage" in options and bytes(options["include_usage"]) == b"true":
        return body
    options.pop("continuous_usage_stats", None)
    options["include_usage"] = True
    fields["stream_options"] = options
    return _encoder.encode(fields)


def inspect_multipart(content_type: str, body: bytes) -> Fields:
    """Read `model`, `stream` and `user` of a multipart form; files are skipped over, never copied.

    Raises InvalidRequest for a form that is malformed or has more than MAX_FORM_PARTS parts, and for a wrong value.
    """
    form = _Form(content_type, body)
    model = form.text("model", MAX_MODEL_CHARS * 4)
    if model is not None:
        check_model(model)
    stream = (form.text("stream", 16) or "").strip().lower()
    if stream not in _TRUE and stream not in _FALSE:
        raise InvalidRequest("stream must be a boolean", "stream")
    user = form.text("user", MAX_USER_CHARS * 4)
    return Fields(model=model or None, stream=stream in _TRUE, user=bounded(user or "") or None)


def with_model_multipart(content_type: str, body: bytes, model: str) -> bytes:
    """The same form asking for another model; every other byte stays."""
    form = _Form(content_type, body)
    spans = form.spans.get("model")
    if not spans:
        head = b"--" + form.boundary + b'\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
        at = body.find(b"--" + form.boundary)
        return b"".join((body[:at], head, model.encode(), b"\r\n", body[at:]))
    pieces = []
    kept = 0
    for start, end in spans:
        pieces += [body[kept:start], model.encode()]
        kept = end
    return b"".join((*pieces, body[kept:]))


class _Form:
    """Where the values of a form's plain fields are: name -> (start, end) offsets in the body, in order."""

    def __init__(self, content_type: str, body: bytes) -> None:
        kind, options = parse_options_header(content_type[:MAX_CONTENT_TYPE_CHARS])
        self.boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not self.boundary:
            raise InvalidRequest("The content type must be multipart/form-data with a boundary.")
        self.spans: dict[str, list[tuple[int, int]]] = {}
        self._body = body
        self._ended = False
        self._start_part()
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._start_part,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }
        self._bound_delimiters()
        try:
            MultipartParser(self.boundary, callbacks).write(body)
        except FormParserError as error:
            raise InvalidRequest(f"The multipart body is malformed: {error}") from None
        if not self._ended:
            raise InvalidRequest("The multipart body has no closing boundary.")

    def text(self, name: str, limit: int) -> str | None:
        """The last value of a field; raises InvalidRequest when it is no UTF-8 or longer than `limit` bytes."""
        if name not in self.spans:
            return None
        start, end = self.spans[name][-1]
        if end - start > limit:
            raise InvalidRequest(f"{name} is too long", name)
        try:
            return self._body[start:end].decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"{name} is not UTF-8", name) from None

    def _bound_delimiters(self) -> None:
        # The parser is slow at lines that begin like a boundary and at blanks after one; a form has few of either.
        delimiter = b"\r\n--" + self.boundary
        at = -1
        for _ in range(MAX_FORM_PARTS + 1):
            at = self._body.find(delimiter, at + 1)
            if at < 0:
                return
            after = at + len(delimiter)
            if len(self._body) - after > MAX_PADDING and not self._body[after : after + MAX_PADDING].strip(b" \t"):
                raise InvalidRequest("The multipart body is malformed: a boundary is followed by too many blanks.")
        raise InvalidRequest(f"The form has more than {MAX_FORM_PARTS} parts.")

    def _start_part(self) -> None:
        self._header = b""
        self._headers_end = 0
        self._name: str | None = None
        self._span: tuple[int, int] | None = None

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header = data[start:end].lower()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._headers_end = end
        if self._header == b"content-disposition":
            if end - start > MAX_DISPOSITION_BYTES:
                raise InvalidRequest("The multipart body is malformed: a Content-Disposition is too long.")
            _, options = parse_options_header(data[start:end].decode("latin-1"))
            if b"filename" not in options:
                self._name = options.get(b"name", b"").decode("latin-1")

    def _part_data(self, _data: bytes, start: int, end: int) -> None:
        self._span = (start, end)

    def _part_end(self) -> None:
        if self._name is None:
            return
        if self._span is None:  # an empty value has no data: it would begin after the empty line that ends the headers
            start = self._body.find(b"\r\n\r\n", self._headers_end) + 4
            self._span = (start, start)
        self.spans.setdefault(self._name, []).append(self._span)

    def _end(self) -> None:
        self._ended = True


def _check_utf8(body: bytes) -> None:
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(body) or InvalidRequest(f"The body is not UTF-8 (byte {error.start}).") from None


def _not_utf8(body: bytes) -> InvalidRequest | None:
    """The refusal of JSON in another of Unicode's encodings."""
    encoding = json.detect_encoding(body[:4])
    if encoding.startswith("utf-8"):
        return None
    return InvalidRequest(f"The body is {encoding[:6].upper()}; JSON is sent as UTF-8 (RFC 8259, section 8.1).")


def _object(body: bytes, name: str | None = None) -> dict[str, msgspec.Raw]:
    try:
        return _objects.decode(body)
    except msgspec.ValidationError:
        raise InvalidRequest(f"{name or 'The body'} must be a JSON object.", name) from None
    except msgspec.DecodeError as error:
        raise _malformed(body, error) from None
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not UTF-8.") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None


def _malformed(body: bytes, error: msgspec.DecodeError) -> InvalidRequest:
    if not body.strip():
        return InvalidRequest("The body is empty; a JSON object is needed.")
    if refusal := _not_utf8(body):
        return refusal
    text = str(error).removeprefix("JSON is malformed: ")
    if "(byte " not in text:  # the decoder calls half a surrogate pair "truncated", too
        found = _HALF_PAIR.match(body, 0, _SCANNED_BYTES)
        text = f"half of a surrogate pair (byte {found.start(1)})" if found else f"it ends too early (byte {len(body)})"
    return InvalidRequest(f"The body is not valid JSON: {text}.")


def _checked(body: bytes) -> _Wire:
    """Read the fields one by one, as vLLM takes them; raises InvalidRequest for the first whose type is wrong."""
    fields = _object(body)
    wire = _Wire()
    for name in fields.keys() & _UNREAD:
        setattr(wire, name, fields[name])
    wire.model = _text(fields, "model")
    wire.stream = _boolean(fields, "stream")
    wire.user = _text(fields, "user")
    for name in _INTEGERS:
        setattr(wire, name, _integer(fields, name))
    options = fields.get("stream_options")
    if options is not None and not _is_null(options):
        wire.stream_options = _StreamOptions(
            _boolean(_object(bytes(options), "stream_options"), "include_usage", "stream_options.")
        )
    return wire


def _text(fields: dict[str, msgspec.Raw], name: str) -> str | None:
    value = _value(fields, name)
    if value is None or isinstance(value, str):
        return value
    raise InvalidRequest(f"{name} must be a string", name)


def _boolean(fields: dict[str, msgspec.Raw], name: str, within: str = "") -> bool | None:
    value = _value(fields, name)
    try:
        return None if value is None else _booleans.validate_python(value)
    except ValidationError:
        raise InvalidRequest(f"{within}{name} must be a boolean", within + name) from None


def _integer(fields: dict[str, msgspec.Raw], name: str) -> int | None:
    value = _value(fields, name)
    try:
        return None if value is None else _integers.validate_python(value)
    except ValidationError:
        raise InvalidRequest(f"{name} must be an integer", name) from None


def _value(fields: dict[str, msgspec.Raw], name: str) -> Any:
    if name not in fields:
        return None
    try:
        return _values.decode(fields[name])
    except msgspec.ValidationError:  # a number of thousands of digits
        raise InvalidRequest(f"{name} is out of range", name) from None
    except RecursionError:
        raise InvalidRequest(f"{name} is nested too deeply", name) from None


def _check_required(path: str, wire: _Wire) -> None:
    if wire.model is not None:
        check_model(wire.model)
    if not _absent(wire.messages) and not _opens(wire.messages, b"["):
        raise InvalidRequest("messages must be an array", "messages")
    required = operation_of(path).required
    if not required:
        return
    if not wire.model:
        raise InvalidRequest("model is missing", "model")
    if path == COMPLETIONS and not _absent(wire.prompt) and not _opens(wire.prompt, b'["'):
        raise InvalidRequest("prompt must be a string or an array", "prompt")
    if all(_absent(getattr(wire, name)) for name in required):
        raise InvalidRequest(f"{required[0]} is missing", required[0])


def check_model(model: str) -> None:
    """Raise InvalidRequest for a name that is longer than any model's."""
    if len(model) > MAX_MODEL_CHARS:
        raise InvalidRequest(f"model is too long: at most {MAX_MODEL_CHARS} characters are allowed", "model")


def _absent(raw: msgspec.Raw) -> bool:
    return not raw or _is_null(raw)


def _is_null(raw: msgspec.Raw) -> bool:
    return _opens(raw, b"n")


def _opens(raw: msgspec.Raw, first: bytes) -> bool:
    return memoryview(raw)[0] in first


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
