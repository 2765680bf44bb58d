"""A request that repeats the head of the one before it: clients send the same bytes again, but for the length of the body.

Such a head was parsed and found sound before, so it needs neither parser nor checks. Whatever differs in a byte does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lexora_gateway.asgi_types import HeaderList, Headers
    from lexora_gateway.http.exchange import Exchange

MAX_BYTES = 4096
_END = b"\r\n\r\n"
_NAME = b"content-length"
_LINE = b"\r\ncontent-length: "
_MAX_DIGITS = 15
_KEEP = b"keep-alive"
# Where one stands, the length is not all that says where a request ends, or when its body comes.
_OTHERWISE = frozenset((b"transfer-encoding", b"expect", b"upgrade"))


class KnownHead:
    """A head around the digits of its content-length, and what is in it."""

    __slots__ = ("_before", "_behind", "_headers", "_pairs", "_place", "_until", "path", "query", "target")

    def __init__(self, target: bytes, exchange: Exchange, before: bytes, behind: bytes) -> None:
        self.target = target
        self.path, self.query = exchange.path, exchange.query
        self._before = before
        self._behind = behind
        self._until = len(before) + _MAX_DIGITS + len(behind)
        self._pairs = exchange.pairs.copy()
        self._headers = exchange.headers.copy()
        self._place = [name for name, _ in self._pairs].index(_NAME)

    def split(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Digits and body of a whole POST with this head; None when it is anything else."""
        if not data.startswith(self._before):
            return None
        start = len(self._before)
        end = data.find(self._behind, start, self._until)
        if end < 0:
            return None
        digits, body = data[start:end], data[end + len(self._behind) :]
        return (digits, body) if digits.isdigit() and int(digits) == len(body) else None

    def with_length(self, digits: bytes) -> tuple[HeaderList, Headers]:
        """Its headers, as a list and by name."""
        pairs, headers = self._pairs.copy(), self._headers.copy()
        pairs[self._place] = (_NAME, digits)
        headers[_NAME] = digits
        return pairs, headers


def known_head(data: bytes, target: bytes, exchange: Exchange) -> KnownHead | None:
    """The head of a read that was one whole request; None for one that may mean another thing when it comes again."""
    length = exchange.headers.get(_NAME, b"")
    if not (length.isdigit() and _is_plain(exchange)):
        return None
    end = len(data) - int(length)
    head = data[:end]
    start = head.lower().find(_LINE) + len(_LINE)
    behind = head[start + len(length) :]
    is_all = end <= MAX_BYTES and head.find(_END) == end - len(_END) and data[end:] == exchange.unread
    if not is_all or start < len(_LINE) or not head.startswith(length + b"\r\n", start):
        return None
    return KnownHead(target, exchange, head[:start], behind)


def _is_plain(exchange: Exchange) -> bool:
    """Whether a request is a POST on a connection that goes on, no header is there twice, and its length says where it ends."""
    headers = exchange.headers
    return (
        exchange.method == b"POST"
        and exchange.keep_alive
        and len(headers) == len(exchange.pairs)
        and headers.get(b"connection", _KEEP).lower() == _KEEP
        and _OTHERWISE.isdisjoint(headers)
    )
