"""What supervisor and workers say to each other: frames of a header in JSON and a body that is not looked at on the way.

A frame is four bytes of length of all that follows, two bytes of length of the header, the header, and the body.
"""

import asyncio
import json
import struct
from typing import Any

# A body has the counts of one worker, at most some hundred kilobytes, or those of all of them.
MAX_BYTES = 256 * 2**20
_LENGTHS = struct.Struct("!IH")

Header = dict[str, Any]


def pack(header: Header, body: bytes = b"") -> bytes:
    """One frame."""
    head = json.dumps(header, separators=(",", ":")).encode()
    return _LENGTHS.pack(2 + len(head) + len(body), len(head)) + head + body


async def read(reader: asyncio.StreamReader) -> tuple[Header, bytes] | None:
    """The next frame; None at the end. Raises ValueError for what is no frame."""
    try:
        whole, head = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
        if whole > MAX_BYTES or head + 2 > whole:
            raise ValueError("no frame")
        rest = await reader.readexactly(whole - 2)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return json.loads(rest[:head]), rest[head:]
