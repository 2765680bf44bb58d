"""JSON as some engines write it: with NaN and Infinity among the numbers, or a byte order mark before it.

Python's json writes the first unasked; RFC 8259 allows neither, and allows a reader to ignore the second (section 8.1).
"""

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

from lexora_router.payload.event_stream import BOM

T = TypeVar("T")
# A string is matched whole, so that the words in it stay; one without an end is matched to the end of the text.
_STRING_OR_WORD = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|-?(?:NaN|Infinity)', re.DOTALL)


def lenient(decode: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """The decoder, made to read NaN and Infinity as null. Raises as it does for what is no JSON then either."""

    def read(text: bytes) -> T:
        try:
            return decode(text)
        except (msgspec.ValidationError, RecursionError):
            raise
        except (msgspec.DecodeError, UnicodeDecodeError):
            if not (text.startswith(BOM) or b"NaN" in text or b"Infinity" in text):
                raise
        return decode(_STRING_OR_WORD.sub(_null_for_a_word, text.removeprefix(BOM)))

    return read


def _null_for_a_word(found: re.Match[bytes]) -> bytes:
    text = found[0]
    return text if text.startswith(b'"') else b"null"


_skim = lenient(msgspec.json.Decoder(msgspec.Raw).decode)


def is_json(text: bytes) -> bool:
    """Whether it is JSON, read leniently; its values are not looked at."""
    try:
        _skim(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
