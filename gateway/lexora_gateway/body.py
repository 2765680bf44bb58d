"""Bounded reading of a request's body."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lexora_gateway.errors import Refused, too_large
from lexora_gateway.watch import ClientGone

if TYPE_CHECKING:
    from lexora_gateway.asgi import Headers, Receive


async def read_body(receive: Receive, headers: Headers, limit: int) -> bytes:
    """The whole body, at most `limit` bytes.

    Raises Refused (413) as soon as the declared or the received length passes the limit, reading no further, and
    ClientGone when the client leaves before the end.
    """
    declared = headers.get(b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise Refused(too_large(limit))
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise Refused(too_large(limit))
        return body
    pieces: list[bytes] = []
    total = 0
    while message["type"] == "http.request":
        piece: bytes = message.get("body", b"")
        total += len(piece)
        if total > limit:
            raise Refused(too_large(limit))
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)
        message = await receive()
    raise ClientGone
