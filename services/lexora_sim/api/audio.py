"""POST /v1/audio/transcriptions and /v1/audio/translations: multipart in, repeatable text out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from lexora_sim.api.deferred import after_prefill, json_body
from lexora_sim.api.errors import bad_request, detail
from lexora_sim.api.fields import Fields
from lexora_sim.text.language import Language
from lexora_sim.text.vocabulary import AUDIO, VOCABULARY

if TYPE_CHECKING:
    from lexora_sim.api.app import App
    from lexora_sim.api.exchange import Exchange

_WORDS = 24
_MAX_PARTS = 100
_BYTES_PER_TOKEN = 1280  # 40 ms of 16 kHz 16-bit sound


def serve_audio(app: App, exchange: Exchange) -> None:
    """Answer with a text made from the file's bytes; response_format json or text. Raises ApiError."""
    form, sound = _read_form(exchange.request.headers.get("content-type", ""), exchange.request.body)
    fields = Fields(dict(form))
    model = app.model_of(fields, pooling=False)
    shape = form.get("response_format", "json")
    if sound is None:
        fields.missing("file")
        fields.check()
    if shape not in ("json", "text"):
        raise bad_request("Currently only support response_format `text` or `json`", "response_format")
    app.accept(exchange, fields, model, 0)
    seed = crc32(sound or b"", crc32(exchange.request.path.encode()))
    prompt = [AUDIO] * min(1 + len(sound or b"") // _BYTES_PER_TOKEN, app.settings.max_model_len)
    seconds = max(1, len(sound or b"") // 32_000)

    def answer() -> tuple[bytes, str]:
        source = Language([AUDIO], seed, _WORDS)
        text = VOCABULARY.decode([source.next(may_end=False) for _ in range(_WORDS)]).strip()
        if shape == "text":
            return text.encode(), "text/plain; charset=utf-8"
        return json_body({"text": text, "usage": {"type": "duration", "seconds": seconds}})

    after_prefill(app, exchange, model, [prompt], answer)


def _read_form(content_type: str, body: bytes) -> tuple[dict[str, str], bytes | None]:
    """Return the text fields and the bytes of `file`."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise detail(400, text="There was an error parsing the body")
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]  # its callbacks type is a union
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise detail(400, text="There was an error parsing the body") from None
    return parts.fields, parts.sound


class _Parts:
    """Collects the parts of one form."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.sound: bytes | None = None
        self._header = b""
        self._value = b""
        self._name = ""
        self._is_file = False
        self._data: list[bytes] = []
        self._count = 0

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_part_data": self._on_data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self._count += 1
        if self._count > _MAX_PARTS:
            raise FormParserError("too many parts")
        self._name, self._is_file, self._data = "", False, []
        self._header = self._value = b""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            self._is_file = b"filename" in options
        self._header = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _end(self) -> None:
        data = b"".join(self._data)
        if self._name == "file":
            self.sound = data
        elif not self._is_file:
            self.fields[self._name] = data.decode("utf-8", "replace")
