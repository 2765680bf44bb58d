"""Server-sent events on the wire: where one ends, and the data in it.

https://html.spec.whatwg.org/multipage/server-sent-events.html: a line ends with LF, CRLF or CR, all of them mixed if need be,
and an empty line ends an event.
"""

import re
from itertools import pairwise

from lexora_router.errors import UpstreamInvalid

MAX_EVENT_BYTES = 16 * 1024 * 1024
SHORT_BYTES = 512  # the marks that end streams are shorter
DONE = b"[DONE]"  # the data of the event that ends OpenAI's streams
BOM = b"\xef\xbb\xbf"  # may precede the first event
_EMPTY_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")


class Splitter:
    """Holds back the unfinished end of a stream, so that only whole events go on."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    @property
    def holds(self) -> bool:
        """Whether there is something of an unfinished event."""
        return bool(self._held)

    @property
    def pending(self) -> bytes:
        """The part of an event that waits for its end."""
        return bytes(self._held.strip())

    @property
    def short(self) -> bytes:
        """The same where it is a short one, else empty: cheap to ask after every piece of a long event."""
        return bytes(self._held.strip()) if 0 < len(self._held) <= SHORT_BYTES else b""

    def feed(self, data: bytes) -> bytes:
        """All events that are complete now, as one piece; raises UpstreamInvalid beyond MAX_EVENT_BYTES."""
        held = self._held
        if not held:
            if data.endswith((b"\n\n", b"\r\n\r\n")):
                return data
            end = _end_of_last(data)
            held += data[end:]
            whole = data[:end]
        else:  # what is held was searched before: only its last bytes may be part of an empty line
            tail = held[-2:]
            if end := _end_of_last(tail + data):
                whole = bytes(held) + data[: end - len(tail)]
                self._held = held = bytearray(data[end - len(tail) :])
            else:
                whole = b""
                held += data
        if len(held) > MAX_EVENT_BYTES:
            raise UpstreamInvalid(f"The engine sent an event of more than {MAX_EVENT_BYTES >> 20} MiB.")
        return whole

    def flush(self) -> bytes:
        """The last event of a stream that ended before its empty line, with that line; empty when nothing is pending."""
        held = bytes(self._held)
        self._held.clear()
        if not held.strip():
            return b""
        return held + (b"\n" if held.endswith(b"\n") else b"\n\n")


def _end_of_last(data: bytes | bytearray) -> int:
    """Offset behind the last empty line, 0 when there is none.

    A last CR behind an LF waits for what follows: in a stream of CRLF it is half of one. Behind another CR it is not made to
    wait, since a stream of CR would lag by an event.
    """
    at = data.rfind(b"\n\n")
    if b"\r" in data:
        at = max(at, data.rfind(b"\n\r", 0, len(data) - 1), data.rfind(b"\r\r"))
    if at < 0:
        return 0
    return at + 3 if data[at + 1 : at + 3] == b"\r\n" else at + 2


def events(block: bytes) -> list[bytes]:
    """The events of a block, each with the empty line that ends it; joined again they are the block."""
    if block.find(b"\n\n") == len(block) - 2:
        return [block]
    if b"\r" not in block:
        parts = block.split(b"\n\n")
        return [part + b"\n\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
    ends = [0, *(found.end() for found in _EMPTY_LINE.finditer(block)), len(block)]
    return [block[start:end] for start, end in pairwise(ends) if end > start]


def data_of(event: bytes) -> bytes:
    """The event's data, its lines joined; empty for a comment."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2:
        return event[6:-2].strip()
    data = [line[5:].strip() for line in event.removeprefix(BOM).splitlines() if line.startswith(b"data:")]
    return data[0] if len(data) == 1 else b"\n".join(data)


def payloads(block: bytes) -> list[bytes]:
    """The data of each event in order; comments, other fields and the end mark are left out."""
    return [data for event in events(block) if (data := data_of(event)) not in (b"", DONE)]


def comments_in(data: bytes) -> int:
    """About how many comment lines have begun in a piece of a stream."""
    return data.startswith(b":") + data.count(b"\n:")
