"""Reading a JSON object without decoding all of it, with errors that say where it is malformed."""

import json
import re
from typing import Any

import msgspec
import re2

from lexora_router.errors import InvalidRequest

_SCANNED_BYTES = 1 << 20
_SMALL_BYTES = 16 * 1024
_ESCAPED_ASCII = b"\\u00"
_BOM = b"\xef\xbb\xbf"
# Everything up to the first \u escape that is half of a surrogate pair, then that escape.
_HALF_PAIR = re.compile(
    rb"(?:[^\\]++|\\[^u]|\\u(?![dD][89a-fA-F])|\\u[dD][89abAB]..\\u[dD][c-fC-F])*+(\\u[dD][89a-fA-F])", re.DOTALL
)

_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])
_values = msgspec.json.Decoder()


class WrittenKeys:
    """Finds keys of JSON however they are written: with any of their letters escaped. Values may look like them.

    In linear time, which large bodies need; of small ones a look at their bytes is cheaper.
    """

    def __init__(self, *names: str) -> None:
        letters = "".join(sorted(set("".join(names))))
        longest = max(map(len, names))
        self._names = tuple(name.encode() for name in names)
        self._pattern = re2.compile(f'"(?:(?:{"|".join(names)})"|[{letters}]{{0,{longest - 1}}}\\\\u00)'.encode())

    def may_be_in(self, body: bytes) -> bool:
        """Whether one of them may be there."""
        if len(body) > _SMALL_BYTES:
            return self._pattern.search(body) is not None
        for name in self._names:
            if name in body:
                return True
        return _ESCAPED_ASCII in body


def without_bom(body: bytes) -> bytes:
    """The body without a byte order mark before its JSON, which not every engine takes."""
    return body[len(_BOM) :] if body.startswith(_BOM) else body


def check_utf8(body: bytes) -> None:
    """Raise InvalidRequest for a body that is no UTF-8."""
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


def object_of(body: bytes, name: str | None = None) -> dict[str, msgspec.Raw]:
    """The values of a JSON object, undecoded; raises InvalidRequest, which names the field `name`, or the body."""
    try:
        return _objects.decode(body)
    except msgspec.ValidationError:
        raise InvalidRequest(f"{name or 'The body'} must be a JSON object.", name) from None
    except msgspec.DecodeError as error:
        raise malformed(body, error) from None
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not UTF-8.") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None


def malformed(body: bytes, error: msgspec.DecodeError) -> InvalidRequest:
    """The refusal of a body that is no JSON: what is wrong, and at which byte."""
    if not body.strip():
        return InvalidRequest("The body is empty; a JSON object is needed.")
    if refusal := _not_utf8(body):
        return refusal
    text = str(error).removeprefix("JSON is malformed: ")
    if "(byte " not in text:  # the decoder calls half a surrogate pair "truncated", too
        found = _HALF_PAIR.match(body, 0, _SCANNED_BYTES)
        text = f"half of a surrogate pair (byte {found.start(1)})" if found else f"it ends too early (byte {len(body)})"
    return InvalidRequest(f"The body is not valid JSON: {text}.")


def value_of(fields: dict[str, msgspec.Raw], name: str) -> Any:
    """The decoded value of a field, None where it is missing; raises InvalidRequest."""
    if name not in fields:
        return None
    try:
        return _values.decode(fields[name])
    except msgspec.ValidationError:  # a number of thousands of digits
        raise InvalidRequest(f"{name} is out of range", name) from None
    except RecursionError:
        raise InvalidRequest(f"{name} is nested too deeply", name) from None


def is_null(raw: msgspec.Raw) -> bool:
    """Whether the value is null."""
    return opens(raw, b"n")


def opens(raw: msgspec.Raw, first: bytes) -> bool:
    """Whether the value begins with one of these bytes."""
    return memoryview(raw)[0] in first
