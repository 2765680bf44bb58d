"""The sockets of this process at a port, which gRPC has made and does not show."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing, suppress


def stop_listening(port: int) -> None:
    """Let the sockets that listen at a port do so no more; connections that were accepted stay."""
    for found in _at(port):
        if _listens(found):
            with suppress(OSError):
                found.shutdown(socket.SHUT_RD)


def connections(port: int) -> int:
    """How many connections of clients there are at a port."""
    return sum(1 for found in _at(port) if not _listens(found) and _is_connected(found))


def _at(port: int) -> Iterator[socket.socket]:
    for name in os.listdir("/proc/self/fd"):
        try:
            copy = os.dup(int(name))
        except OSError:
            continue  # it has just been closed
        try:
            found = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)  # another kind of file
            continue
        with closing(found), suppress(OSError):
            if found.family in (socket.AF_INET, socket.AF_INET6) and found.getsockname()[1] == port:
                yield found


def _listens(found: socket.socket) -> bool:
    return bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _is_connected(found: socket.socket) -> bool:
    try:
        found.getpeername()
    except OSError:
        return False
    return True
