"""The server: sockets, start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable
from types import TracebackType

from lexora_sim.api.app import App
from lexora_sim.api.routes import routes_of
from lexora_sim.faults.fault import Fault
from lexora_sim.settings import SimSettings
from lexora_sim.wire.protocol import Connection

_BACKLOG = 2048
_CLOSE_SECONDS = 1.0  # for the last bytes to a client that does not read


class Simulator:
    """A simulated server as an async context manager: it listens inside, and is gone outside.

    `host` and `port` are the real address, `app` gives tests its counters. Raises OSError when the address is taken.
    """

    def __init__(self, settings: SimSettings) -> None:
        self.settings = settings
        self.host, self.port = settings.host, settings.port
        self._app: App | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._relisten: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()  # set while there is no connection
        self._gone.set()

    @property
    def app(self) -> App:
        """The running application."""
        if self._app is None:
            raise RuntimeError("the simulator is not running")
        return self._app

    @property
    def url(self) -> str:
        """Where it listens, as http://HOST:PORT."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def __aenter__(self) -> Simulator:
        self._app = App(self.settings, routes_of(self.settings))
        self._app.refuse = self._refuse
        self._app.accept_again = self._accept_again
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop(grace=0.0)

    async def stop(self, grace: float) -> None:
        """Stop as vLLM does on SIGTERM: running answers end with "abort", then connections get `grace` seconds."""
        self.app.stopping = True
        if self._relisten is not None:
            self._relisten.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._relisten
        if self._server is not None:
            self._server.close()
        self.app.scheduler.abort_all()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        while self._connections and loop.time() < deadline:
            for connection in list(self._connections):
                if connection.idle:
                    connection.close()
            await asyncio.sleep(0.01)
        for connection in list(self._connections):
            connection.close() if connection.idle else connection.reset()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), _CLOSE_SECONDS)
        for connection in list(self._connections):
            connection.reset()
        await self._gone.wait()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((self.host, self.port))
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        self.port = sock.getsockname()[1]
        self._server = await loop.create_server(self._connection, sock=sock, backlog=_BACKLOG)

    def _connection(self) -> Connection:
        return Connection(
            self.app.serve,
            keep_alive=self.settings.keep_alive,
            max_body_bytes=self.settings.max_body_bytes,
            opened=self._opened,
            closed=self._closed,
        )

    def _opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._gone.clear()
        self.app.stats.opened()

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._gone.set()
        self.app.stats.connections -= 1

    def _refuse(self, fault: Fault) -> None:
        """Stop listening for `ms` (1000); with drop=1 also reset the connections there are."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        if fault.number("drop", 0):
            for connection in list(self._connections):
                connection.reset()
        self._relisten = asyncio.get_running_loop().create_task(self._listen_later(fault.number("ms", 1000) / 1000))

    async def _listen_later(self, delay: float) -> None:
        await asyncio.sleep(delay)
        await self._listen()

    def _accept_again(self) -> None:
        if self._server is None:
            if self._relisten is not None:
                self._relisten.cancel()
            self._relisten = asyncio.get_running_loop().create_task(self._listen_later(0.0))


async def serve(settings: SimSettings, *, ready: Callable[[str, int], None] | None = None) -> None:
    """Serve until cancelled; `ready(host, port)` is called once it listens. Raises OSError when the address is taken."""
    async with Simulator(settings) as simulator:
        if ready is not None:
            ready(simulator.host, simulator.port)
        await asyncio.Event().wait()


def run(settings: SimSettings) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code; says on stdout where it listens."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_run(settings))
    except OSError as error:
        print(f"lexora-sim: {_words(error, settings)}", file=sys.stderr)  # noqa: T201 - a command's own output
        return 1
    return 0


def _words(error: OSError, settings: SimSettings) -> str:
    return f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; name another --port or --host"


async def _run(settings: SimSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Simulator(settings) as simulator:
        names = ", ".join((*settings.models, *settings.embedding_models))
        print(f"lexora-sim: serving {names} on {simulator.url}", flush=True)  # noqa: T201 - a command's own output
        await stop.wait()
        await simulator.stop(grace=settings.shutdown_grace_ms / 1000)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - not there on every platform
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
