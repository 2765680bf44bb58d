"""Sockets of an address that several processes serve: one that keeps it for this gateway, and one for each worker."""

import socket

# Of an answer so many bytes may wait in the kernel for a client that does not read; without a bound they are megabytes, so that
# it is long before the engine is paused. What is on its way to the client does not count: a fast one is no slower.
UNSENT_BYTES = 128 * 1024


def tcp_socket(host: str) -> socket.socket:
    """A TCP socket for an address, with the settings that a listening one passes on to its connections."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    return made


def keep(host: str, port: int) -> socket.socket:
    """A socket that keeps an address for the workers and never listens; port 0 picks a free one. Raises OSError.

    It is bound as an ordinary socket: an address that any other process has is refused, also one that would share it. What
    binds to the address after that must share it (SO_REUSEPORT), which is for processes of the same user only.
    """
    keeper = tcp_socket(host)
    try:
        keeper.bind((host, port))
    except OSError:
        keeper.close()
        raise
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return keeper


def share(host: str, port: int) -> socket.socket:
    """One more socket of an address that is kept, not listening yet. Raises OSError."""
    shared = tcp_socket(host)
    try:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind((host, port))
    except OSError:
        shared.close()
        raise
    return shared
