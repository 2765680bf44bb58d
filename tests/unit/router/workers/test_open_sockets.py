import socket

import pytest

from lexora_router.workers.open_sockets import connections, stop_listening


def test_a_port_is_left_and_its_connections_stay() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as other:
        port = listener.getsockname()[1]
        with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as served:
            assert (connections(port), connections(other.getsockname()[1])) == (1, 0)
            stop_listening(port)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
            client.sendall(b"still here")
            assert served.recv(10) == b"still here"
            assert connections(port) == 1
        assert connections(port) == 0
        socket.create_connection(other.getsockname()).close()
