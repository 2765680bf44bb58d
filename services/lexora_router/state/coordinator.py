"""The store of the workers of one machine: a process that serves it at a unix socket, for as long as its parent lives."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import structlog
import uvloop

from lexora_router.state.frames import BadFrame, Exchange, Given, Leave, News, Reader, Refused, ToStore, packed
from lexora_router.state.memory import Store
from lexora_router.state.port import Answer, Ask, Batch, StateUnavailable
from lexora_router.state.program import Programs
from lexora_router.state.programs import PROGRAMS

GRACE_SECONDS = 0.5
"""A member that has lost its connection, as one whose process has died, is given up after so long: well before its ttl."""
PARENT_SECONDS = 0.2
"""Between two looks whether the parent lives."""
MAX_UNREAD_BYTES = 256 * 1024
"""News are left out for a worker that has not read so many bytes: it asks with its next tick."""

BACKLOG = 256

_log = structlog.get_logger("lexora.coordinator")


def coordinate(path: str, programs: Programs = PROGRAMS) -> None:
    """Serve the workers at the socket `path` until the parent of this process is gone. Raises OSError.

    For a child process of the supervisor; a socket that is there already, of an earlier one, is replaced. Signals that end or
    reload a service go to all its processes at once: this one outlives the workers, which drain.
    """
    parent = os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    uvloop.run(_serve(path, programs, parent))


async def _serve(path: str, programs: Programs, parent: int) -> None:
    coordinator, alone = Coordinator(programs, time.monotonic), asyncio.Event()
    await coordinator.start(path)
    loop = asyncio.get_running_loop()

    def look() -> None:
        if os.getppid() != parent:
            alone.set()
        else:
            loop.call_later(PARENT_SECONDS, look)

    look()
    await alone.wait()
    await coordinator.stop()
    Path(path).unlink(missing_ok=True)  # noqa: ASYNC240 - the end


def _listener(path: str) -> socket.socket:
    """A socket for processes of this user only; where there is a file, it listens. Raises OSError."""
    made = Path(f"{path}.new")
    made.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(made))
        listener.listen(BACKLOG)
        made.rename(path)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


class Coordinator:
    """Serves one store. `start`, then `stop`. `clock` is monotonic."""

    def __init__(self, programs: Programs, clock: Callable[[], float]) -> None:
        self._store = Store(programs)
        self._clock = clock
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, path: str) -> None:
        """Listen, for processes of this user only. Raises OSError."""
        listener = _listener(path)
        try:
            self._server = await asyncio.get_running_loop().create_unix_server(lambda: _Connection(self), sock=listener)
        except OSError:
            listener.close()
            raise

    async def stop(self) -> None:
        """Close every connection."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.abort()

    def exchange(self, frame: Exchange) -> Answer:
        """Run it, and send its news. Raises StateUnavailable."""
        asks = tuple(Ask(*ask) for ask in frame.asks)
        answer, news = self._store.exchange(Batch(frame.member, frame.ttl, frame.number, frame.join, asks), self._clock())
        if news:
            self._send(News(frame.member, sorted(news)))
        return answer

    def leave(self, member: str) -> None:
        """End a membership."""
        self._store.leave(member)
        self._send(News(member, sorted(self._store.names)))

    def opened(self, connection: "_Connection") -> None:
        """A worker has connected."""
        self._connections.add(connection)

    def closed(self, connection: "_Connection") -> None:
        """It is gone: what its members hold is free soon, unless they connect again."""
        self._connections.discard(connection)
        for member in connection.members:
            self._store.expire(member, GRACE_SECONDS, self._clock())

    def _send(self, news: News) -> None:
        frame = packed(news)
        for connection in self._connections:
            if news.member not in connection.members:
                connection.offer(frame)


class _Connection(asyncio.Protocol):
    """One worker."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.members: set[str] = set()  # those that it has asked for; a worker may become another one
        self._coordinator = coordinator
        self._reader = Reader[ToStore](ToStore)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own are no subclass
        self._coordinator.opened(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            for frame in self._reader.feed(data):
                self._transport.write(packed(self._answer(frame)))
        except BadFrame as error:
            _log.warning("worker_refused", reason=str(error))
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._coordinator.closed(self)

    def offer(self, frame: bytes) -> None:
        """Send it to a worker that reads."""
        if not self._transport.is_closing() and self._transport.get_write_buffer_size() < MAX_UNREAD_BYTES:
            self._transport.write(frame)

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _answer(self, frame: ToStore) -> Given | Refused:
        try:
            if isinstance(frame, Leave):
                self._coordinator.leave(frame.member)
                self.members.discard(frame.member)
                return Given(False, 0, [])
            if frame.join:
                self.members = {frame.member}
            answer = self._coordinator.exchange(frame)
        except StateUnavailable as error:
            return Refused(str(error))
        except Exception:  # the boundary: a bug of a program must not end the store of all
            _log.exception("bug", programs=[name for name, _ in frame.asks] if isinstance(frame, Exchange) else [])
            return Refused("internal error; the log of the coordinator has it")
        if answer.known:
            self.members.add(frame.member)
        return Given(answer.known, answer.members, list(answer.answers))
