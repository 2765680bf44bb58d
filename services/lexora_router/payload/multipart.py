"""Multipart forms: the few fields that the router reads, and the one that it changes. Files are skipped over, never copied."""

import logging
import re
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from lexora_router.errors import InvalidRequest
from lexora_router.payload.fields import MAX_MODEL_CHARS, Fields, check_model
from lexora_router.payload.user_names import bounded

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_USER_CHARS = 1024
MAX_FORM_PARTS = 256
MAX_CONTENT_TYPE_CHARS = 1024
MAX_DISPOSITION_BYTES = 1024
MAX_PADDING = 64

# The name of a field as RFC 2231 writes it, which forms must not have (RFC 7578, 4.2): parsers differ in whether they read it.
_EXTENDED_NAME = re.compile(rb";\s*name\s*\*", re.IGNORECASE)

_TRUE = frozenset(("true", "1", "yes", "on", "t", "y"))
_FALSE = frozenset(("false", "0", "no", "off", "f", "n", ""))

# The parser logs a warning for each malformed form; the client gets that as its answer.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


def is_form(content_type: str) -> bool:
    """Whether a body of this type is a multipart one: the letters' case says nothing (RFC 9110, section 8.3.1)."""
    return content_type[:10].lower() == "multipart/"


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


def names_of(content_type: str, body: bytes) -> list[tuple[str, bool]]:
    """The names of all parts in order, and whether each is a file."""
    return _Form(content_type, body).names


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
        self.names: list[tuple[str, bool]] = []
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
        self._is_file = False
        self._span: tuple[int, int] | None = None

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header = data[start:end].lower()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._headers_end = end
        if self._header == b"content-disposition":
            if end - start > MAX_DISPOSITION_BYTES:
                raise InvalidRequest("The multipart body is malformed: a Content-Disposition is too long.")
            if b"*" in data[start:end] and _EXTENDED_NAME.search(data, start, end):
                raise InvalidRequest("The multipart body is malformed: a field is named by name*; name it by name.")
            _, options = parse_options_header(data[start:end].decode("latin-1"))
            # Of several of this header the last one counts, as in Starlette.
            self._name, self._is_file = options.get(b"name", b"").decode("latin-1"), b"filename" in options

    def _part_data(self, _data: bytes, start: int, end: int) -> None:
        self._span = (start, end)

    def _part_end(self) -> None:
        if self._name is None:
            return
        self.names.append((self._name, self._is_file))
        if self._is_file:
            return
        if self._span is None:  # an empty value has no data: it would begin after the empty line that ends the headers
            start = self._body.find(b"\r\n\r\n", self._headers_end) + 4
            self._span = (start, start)
        self.spans.setdefault(self._name, []).append(self._span)

    def _end(self) -> None:
        self._ended = True
