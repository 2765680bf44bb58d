"""Whether something has come on a connection that the event loop has not read yet."""

from __future__ import annotations

import fcntl
import struct
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

_NONE = struct.pack("i", 0)


def has_unread(transport: asyncio.Transport) -> bool:
    """Whether bytes wait in the kernel, of a transport of a socket."""
    made = transport.get_extra_info("socket")
    return made is not None and made.fileno() >= 0 and fcntl.ioctl(made.fileno(), termios.FIONREAD, _NONE) != _NONE
