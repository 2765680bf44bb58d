"""What a body is, by its content type and by how it begins: some engines and proxies send event streams under any type."""

from enum import Enum
from functools import lru_cache

EVENT_STREAM = "text/event-stream"
# What may precede the first event, or JSON: white space and a byte order mark, byte by byte.
_BLANK = b" \t\r\n\xef\xbb\xbf"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:")
_LONGEST = max(map(len, _FIELDS))


class BodyKind(Enum):
    """How a body is relayed."""

    EVENTS = "events"  # piece by piece
    WHOLE = "whole"


@lru_cache(64)
def media_type(content_type: str) -> str:
    """Type and subtype in small letters, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def is_blank(start: bytes) -> bool:
    """Whether nothing can be said yet: only white space has come."""
    return not start.strip(_BLANK)


def body_of(start: bytes, *, labelled: bool) -> BodyKind | None:
    """What begins like this; None while more is needed. `labelled`: its content type is that of an event stream."""
    start = start.lstrip(_BLANK)
    if not start:
        return None
    if start.startswith((b"{", b"[")):  # no event begins so: a client would skip it
        return BodyKind.WHOLE
    if labelled or start.startswith((b":", *_FIELDS)):
        return BodyKind.EVENTS
    begun = len(start) < _LONGEST and any(field.startswith(start) for field in _FIELDS)
    return None if begun else BodyKind.WHOLE
