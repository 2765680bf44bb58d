import contextlib
import socket

import pytest

from lexora_router.process.listening import HTTP, listen
from lexora_router.workers.sockets import UNSENT_BYTES


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="this system bounds nothing of the kind")
def test_a_client_that_reads_nothing_holds_little_in_the_kernel() -> None:
    """Without the bound it is megabytes: as much as the system lets a connection's buffer grow."""
    with listen("127.0.0.1", 0, HTTP) as listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname())
        listener.setblocking(True)
        connection, _ = listener.accept()
        with connection:
            connection.setblocking(False)
            taken = 0
            with contextlib.suppress(BlockingIOError):
                while taken < 64 * UNSENT_BYTES:
                    taken += connection.send(b"x" * 65_536)
            assert taken < 4 * UNSENT_BYTES
