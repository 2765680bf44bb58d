"""Listening addresses, and what to do when one cannot be had."""

import errno
import socket
from dataclasses import dataclass

from lexora_router.machine import usable_descriptors
from lexora_router.workers.sockets import tcp_socket

MAX_BACKLOG = 2048
# The event loop accepts all that waits at once, before it closes anything: it must not run out of file descriptors over that.
BACKLOG_SHARE = 4
MIN_BACKLOG = 32


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that choose an address, for messages: keys of the configuration and options of the command."""

    host: str
    port: str


HTTP = Settings("server.host (--host)", "server.port (--port)")
GRPC = Settings("server.grpc_host (--host)", "server.grpc_port (--grpc-port)")
ADMIN = Settings("server.admin_host", "server.admin_port")
ADMIN_GRPC = Settings("server.admin_host", "server.admin_grpc_port")
METRICS = Settings("server.host", "server.metrics_port (--metrics-port)")


class CannotListen(OSError):
    """An address cannot be had; the message names it, the reason and the setting to change."""

    def __init__(self, where: str, error: OSError, settings: Settings) -> None:
        self.where = where
        reason = "no such host name or address" if isinstance(error, socket.gaierror) else error.strerror or str(error)
        setting = settings.port if error.errno in (errno.EADDRINUSE, errno.EACCES) else settings.host
        super().__init__(f"cannot listen on {where}: {reason}; change {setting}")


def listen(host: str, port: int, settings: Settings) -> socket.socket:
    """A listening, non-blocking TCP socket; port 0 picks a free one. Raises CannotListen."""
    listener = tcp_socket(host)
    try:
        listener.bind((host, port))
        listener.listen(backlog())
    except OSError as error:
        listener.close()
        raise CannotListen(address(host, port), error, settings) from error
    listener.setblocking(False)
    return listener


def backlog() -> int:
    """Connections that may wait to be accepted."""
    return min(MAX_BACKLOG, max(MIN_BACKLOG, usable_descriptors() // BACKLOG_SHARE))


def address(host: str, port: int) -> str:
    """host:port as people and clients write it; a unix: address stays as it is."""
    if host.startswith("unix:"):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listening_address(listener: socket.socket) -> str:
    """host:port of a listening socket."""
    host, port = listener.getsockname()[:2]
    return address(host, port)
