"""Where this process listens: at sockets of its own, or, as one of several workers, at those that it was given."""

import socket

from lexora_router.process.listening import CannotListen, Settings, address, backlog, listen
from lexora_router.workers.plan import Place


class Ports:
    """Listening sockets by the name of their address, and the ports of gRPC, which makes its sockets by itself."""

    def __init__(self, place: Place | None = None) -> None:
        self._place = place

    def listen(self, name: str, host: str, port: int, settings: Settings) -> socket.socket:
        """A listening, non-blocking socket. Raises CannotListen."""
        given = None if self._place is None else self._place.socket(name)
        if given is None:
            return listen(host, port, settings)
        try:
            given.listen(backlog())
        except OSError as error:
            raise CannotListen(address(host, port), error, settings) from error
        given.setblocking(False)
        return given

    def of_grpc(self, name: str, port: int) -> int:
        """The port that gRPC is to listen on."""
        return port if self._place is None else self._place.ports.get(name, port)
