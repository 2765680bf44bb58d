import socket

import pytest

from lexora_router.workers.sockets import keep, share


def refused(host: str, port: int) -> bool:
    with pytest.raises(OSError, match="Address already in use"):
        keep(host, port)
    return True


def test_a_kept_address_is_shared_on_purpose_only() -> None:
    with keep("127.0.0.1", 0) as keeper:
        port = keeper.getsockname()[1]
        assert refused("127.0.0.1", port), "before anything listens there"
        with share("127.0.0.1", port) as first, share("127.0.0.1", port) as second:
            first.listen()
            second.listen()
            for _ in range(8):
                socket.create_connection(("127.0.0.1", port)).close()
            assert refused("127.0.0.1", port)
            assert refused("0.0.0.0", port)
        assert refused("127.0.0.1", port), "nor while no worker has it"


def test_what_waits_at_a_worker_that_died_is_refused_and_others_serve_on() -> None:
    with keep("127.0.0.1", 0) as keeper, share("127.0.0.1", keeper.getsockname()[1]) as living:
        address = keeper.getsockname()
        dead = share(*address)
        living.listen(64)
        dead.listen(64)
        dead.close()
        for _ in range(16):
            with socket.create_connection(address, timeout=5), living.accept()[0]:
                pass
