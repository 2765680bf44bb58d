"""An answer whose head repeats an earlier one's on the connection: servers send the same bytes but for the length and the date.

Such a head was parsed and found sound before, so it needs no parser: the length says where the answer ends. Whatever differs in
another byte goes to the parser.
"""

import re
from collections.abc import Sequence

from lexora_router.engines.response import Exchange, Response

MAX_BYTES = 4096
_END = b"\r\n\r\n"
_LENGTH, _DATE = b"content-length", b"date"
# What stands in place of a value, by the name of the group that finds it (RFC 9110, sections 8.6 and 5.6.7).
_PATTERNS = {
    "length": rb"([0-9]{1,15})",
    "date": rb"(?:[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT)",
}
_VALUES = re.compile(
    rb"(?<=\r\n(?i:content-length): )(?P<length>%b)(?=\r\n)|(?<=\r\n(?i:date): )(?P<date>%b)(?=\r\n)"
    % (_PATTERNS["length"], _PATTERNS["date"])
)


class KnownAnswer:
    """The head of an answer, with any length and date. One Response serves all answers, without those two headers."""

    __slots__ = ("_match", "response")

    def __init__(self, connection: Exchange, pattern: bytes, response: Response) -> None:
        self._match = re.compile(pattern).match
        headers = [(name, value) for name, value in response.headers if name not in (_LENGTH, _DATE)]
        self.response = Response(connection, response.status, headers)

    def split(self, data: bytes) -> tuple[int, bytes] | None:
        """Length of the body, and what has come of the body, in a read that begins with this head; None for anything else."""
        found = self._match(data)
        if found is None:
            return None
        length, body = int(found[1]), data[found.end() :]
        return (length, body) if len(body) <= length else None


def pattern_of(data: bytes, body_bytes: int, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """What matches the same head again; empty for one that may mean another thing then.

    `data` is a read that begins with the head of an answer, on a connection that goes on, and ends with so many bytes of the
    body; `headers` are those that the parser found.
    """
    end = data.find(_END, 0, MAX_BYTES) + len(_END)
    names = [name for name, _ in headers]
    if end != len(data) - body_bytes or names.count(_LENGTH) != 1 or b"transfer-encoding" in names:
        return b""
    pattern, place, lengths = b"", 0, 0
    for found in _VALUES.finditer(data, 0, end):
        kind = str(found.lastgroup)
        lengths += kind == "length"
        pattern += re.escape(data[place : found.start()]) + _PATTERNS[kind]
        place = found.end()
    return pattern + re.escape(data[place:end]) if lengths == 1 else b""
