"""Reading typed fields from a JSON body, with the validator's own complaints."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from lexora_sim.api.convert import Wrong, to_boolean, to_integer, to_list, to_mapping, to_number, to_string
from lexora_sim.api.errors import bad_request, detail, unsupported_media_type, validation_error
from lexora_sim.wire.request import Request

T = TypeVar("T")


class Fields:
    """A JSON object whose fields are read by type; `check` raises what was found wrong, all at once."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body
        self._problems: list[dict[str, Any]] = []

    def integer(self, name: str, default: int | None = None) -> int | None:
        """Return an integer; digits in a string and whole floats count."""
        return self._read(name, to_integer, default)

    def number(self, name: str) -> float | None:
        """Return a float or None; digits in a string count."""
        return self._read(name, to_number, None)

    def boolean(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean; 0, 1 and the usual words count."""
        return bool(self._read(name, to_boolean, default))

    def string(self, name: str) -> str | None:
        """Return a string or None."""
        return self._read(name, to_string, None)

    def items(self, name: str, *, required: bool = False) -> list[Any] | None:
        """Return a list or None; a required one must be there and not be null."""
        if required and self.body.get(name) is None:
            if name in self.body:
                self._wrong("list_type", name, "Input should be a valid list", None)
            else:
                self.missing(name)
        return self._read(name, to_list, None)

    def mapping(self, name: str) -> dict[str, Any] | None:
        """Return an object or None."""
        return self._read(name, to_mapping, None)

    def missing(self, name: str) -> None:
        """Note a required field that is not there."""
        self._wrong("missing", name, "Field required", self.body)

    def check(self) -> None:
        """Raise what was found wrong so far."""
        if self._problems:
            raise validation_error(self._problems)

    def _read(self, name: str, convert: Callable[[Any], T], default: T | None) -> T | None:
        value = self.body.get(name)
        if value is None:
            return default
        try:
            return convert(value)
        except Wrong as wrong:
            self._wrong(wrong.kind, name, wrong.message, value)
            return default

    def _wrong(self, kind: str, name: str, message: str, value: Any) -> None:
        self._problems.append({"type": kind, "loc": f"body.{name}", "msg": message, "input": _shown(value)})


def read_fields(request: Request) -> Fields:
    """Read a request's JSON object; raises ApiError for anything else."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise unsupported_media_type()
    value = _decode(request.body)
    if isinstance(value, dict):
        return Fields(value)
    text = "Input should be a valid dictionary or object to extract fields from"
    raise validation_error([{"type": "model_attributes_type", "loc": "body", "msg": text, "input": _shown(value)}])


def string_list(fields: Fields, name: str) -> list[str]:
    """Return a string or a list of strings as a list; raises ApiError."""
    value = fields.body.get(name)
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise bad_request(f"{name} must be a string or a list of strings.", name)


def _decode(body: bytes) -> Any:
    if not body:
        raise validation_error([{"type": "missing", "loc": "body", "msg": "Field required", "input": "None"}])
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_slowly(body)


def _decode_slowly(body: bytes) -> Any:
    """Take what only the standard parser takes (NaN, huge numbers), or say where it failed."""
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        problem = {
            "type": "json_invalid",
            "loc": f"body.{error.pos}",
            "msg": "JSON decode error",
            "input": "<dict of 0 items>",
            "ctx": {"error": error.msg},
        }
        raise validation_error([problem]) from None
    except (UnicodeDecodeError, RecursionError, ValueError):
        raise detail(400, text="There was an error parsing the body") from None


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"<dict of {len(value)} items>"
    if isinstance(value, list):
        return f"<list of {len(value)} items>"
    return str(value)


def check_messages(messages: list[Any]) -> None:
    """Refuse a conversation that the chat template cannot take."""
    if not messages:
        raise bad_request("Cannot apply chat template to an empty conversation. Provide at least one message.")
    if not all(isinstance(message, dict) for message in messages):
        raise bad_request("each message must be an object.", "messages")
