"""New connections: all that wait are taken in one turn of the event loop.

libuv takes one per turn (since 1.45, libuv/libuv#3696). A turn of a busy process takes 10 ms, so the last of a hundred new
clients would wait for a second.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

# So many per turn: those that are served have theirs in between.
MOST_PER_TURN = 32


class Accepting:
    """Makes the protocol of a connection that the event loop has taken, and takes those that wait behind it.

    `connection` makes the protocol. `listeners` are non-blocking, and the event loop takes connections from each of them.
    """

    def __init__(self, connection: Callable[..., asyncio.Protocol], listeners: Sequence[socket.socket]) -> None:
        self._connection = connection
        self._listeners = listeners
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, **given: Any) -> asyncio.Protocol:
        """`given` is for `connection`."""
        make = partial(self._connection, **given)
        for listener in self._listeners:
            self._take_from(listener, make)
        return make()

    def _take_from(self, listener: socket.socket, make: Callable[[], asyncio.Protocol]) -> None:
        for _ in range(MOST_PER_TURN):
            try:
                taken, _ = listener.accept()
            except OSError:  # none is left; for all else that is wrong the event loop has an answer
                return
            taken.setblocking(False)
            task = asyncio.create_task(_serve(taken, make))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _serve(taken: socket.socket, make: Callable[[], asyncio.Protocol]) -> None:
    try:
        await asyncio.get_running_loop().connect_accepted_socket(make, taken)
    except OSError:  # the client has left already
        taken.close()
