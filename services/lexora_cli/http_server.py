"""The facade's HTTP server, started and stopped by its owner, not by signals."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from lexora_cli.fast_imports import fast_imports
from lexora_gateway import (
    BufferedBytes,
    Connections,
    Cors,
    DeferredApp,
    GatewayServer,
    Hosts,
    Patience,
    Tls,
    bounded,
    server_config,
)
from lexora_router.config.models import CorsConfig, ServerConfig
from lexora_router.machine import usable_descriptors, usable_memory
from lexora_router.process.listening import ADMIN, backlog, listening_address
from lexora_router.process.ports import Ports
from lexora_router.process.server_tls import ServerTls
from lexora_router.process.serving_process import ServingProcess

# What a response may take to reach a slow client after the drain; then its connection is cut.
GRACE_SECONDS = 5
# A client that has sent nothing for so long is not about to: its connection can be closed without a request in between.
RETIRED_IDLE_SECONDS = 2.0
# By default the bodies that are being read take at most this share of the memory.
READING_SHARE = 8


def buffered_bytes(server: ServerConfig) -> BufferedBytes:
    """The bound of the bodies that are being read, as it is configured."""
    most = usable_memory() // READING_SHARE if server.max_buffered_bytes is None else server.max_buffered_bytes
    return BufferedBytes(most, server.max_body_bytes)


def listen_for_operators(server: ServerConfig, ports: Ports) -> socket.socket | None:
    """The socket of the port for operators, where HTTP has one. Raises CannotListen."""
    if server.admin_port is None:
        return None
    return ports.listen("admin", server.admin_host or server.host, server.admin_port, ADMIN)


async def hand_over(
    process: ServingProcess, servers: Iterable["HttpServer"], empty: Callable[[], bool], seconds: float
) -> None:
    """Leave the ports to another process; return when no connection is open and it is `empty`, or after so many seconds."""
    for server in servers:
        server.retire()

    def gone() -> bool:
        return not sum([server.close_idle() for server in servers]) and empty()

    await process.until(gone, seconds)


def _cors(config: CorsConfig) -> Cors | None:
    if not config.allow_origins:
        return None
    return Cors(config.allow_origins, headers=config.allow_headers, max_age=config.max_age)


class ConnectionFacts:
    """The metrics of a server's connections."""

    def __init__(self, connections: Connections, tls: Tls | None) -> None:
        self._connections = connections
        self._tls = tls

    def collect(self) -> Iterator[Metric]:
        """Two metrics, and one of HTTPS."""
        yield GaugeMetricFamily("lexora_http_connections", "Open HTTP connections.", value=self._connections.open)
        refused = CounterMetricFamily(
            "lexora_http_connections_refused", "HTTP connections above a bound, none of them idle.", labels=["bound"]
        )
        for bound, count in self._connections.refused.items():
            refused.add_metric([bound], count)
        yield refused
        if self._tls is not None:
            failed = CounterMetricFamily(
                "lexora_tls_handshakes_failed", "HTTPS connections without a handshake to the end.", labels=["reason"]
            )
            for reason, count in self._tls.failed.items():
                failed.add_metric([reason], count)
            yield failed


class HttpServer:
    """Serves an application on a socket that is already listening, with the limits and the CORS of the configuration."""

    def __init__(self, app: DeferredApp, listener: socket.socket, server: ServerConfig, tls: ServerTls | None) -> None:
        host, port = listener.getsockname()[:2]
        connections = bounded(usable_descriptors(), server.max_connections, server.max_connections_per_address)
        self._connections = connections
        secured = None if tls is None else Tls(tls.context, server.tls.handshake_timeout)
        self.facts = ConnectionFacts(connections, secured)
        config = server_config(
            app,
            host=host,
            port=port,
            patience=Patience(write=server.write_timeout),
            cors=_cors(server.cors),
            connections=connections,
            tls=secured,
            hosts=Hosts(server.hosts) if server.hosts else None,
            max_age=server.max_connection_age,
        )
        config.backlog = backlog()
        config.timeout_graceful_shutdown = GRACE_SECONDS
        self.url = f"{'http' if tls is None else 'https'}://{listening_address(listener)}"
        self._ready = asyncio.Event()
        self._server = _Server(config, lambda _: self._ready.set())
        self._listener = listener
        self._app = app
        self._task: asyncio.Task[None] | None = None
        self._building: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when requests are served; what the first ones can do without is made ready beside them."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]), name="lexora-http")
        await self._or_end(self._ready)
        self._building = asyncio.create_task(asyncio.to_thread(self._build))

    def _build(self) -> None:
        with fast_imports():
            self._app.build()

    async def serve_until(self, stop: asyncio.Event) -> None:
        """Return when `stop` is set; raises RuntimeError when the server ends by itself."""
        await self._or_end(stop)

    def drain(self) -> None:
        """Close idle connections, and others with their next answers: their clients' next requests find another process."""
        self._connections.drain()

    def retire(self) -> None:
        """Take no new connections, and let those there are end with their next answers: another process is there for them."""
        self._connections.retire()
        for server in self._server.servers:
            server.close()
        self._listener.close()

    def close_idle(self) -> int:
        """Close connections that were idle for long, after `retire`; returns how many are open."""
        self._connections.close_idle_for(RETIRED_IDLE_SECONDS)
        return self._connections.open

    async def stop(self) -> None:
        """Take no new connections, close idle ones, let responses finish for a few seconds, then return."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)  # `_or_end` raises what it ended with
        self._listener.close()

    async def _or_end(self, event: asyncio.Event) -> None:
        assert self._task is not None
        waiting = asyncio.create_task(event.wait())
        try:
            await asyncio.wait((self._task, waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._task.done() and not event.is_set():
            raise RuntimeError("the HTTP server ended by itself") from self._task.exception()


class _Server(GatewayServer):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the command."""
        yield
