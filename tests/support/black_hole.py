"""An address that swallows packets."""

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def no_connection(host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """A base URL where nothing takes a connection: the queue is full, so the kernel drops what else comes."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://{host}:{listener.getsockname()[1]}"
