"""The router alone, over gRPC; and the gRPC side of a process that serves HTTP too."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import structlog

from lexora_router.config import Config
from lexora_router.process.app import RouterApp
from lexora_router.process.listening import ADMIN_GRPC, GRPC, METRICS, CannotListen, Settings, address, listen
from lexora_router.process.ports import Ports
from lexora_router.process.process_memory import kept_low
from lexora_router.process.reload import Reloader
from lexora_router.process.server_tls import ServerTls, server_tls
from lexora_router.process.serving_process import ServingProcess
from lexora_router.process.source import ConfigSource

if TYPE_CHECKING:
    from lexora_router.process.metrics_server import MetricsServer

# After the drain: for the last messages of answers that have just ended, and for watchers of the health service.
GRACE_SECONDS = 1.0

_log = structlog.get_logger("lexora")


async def serve(config: Config, source: ConfigSource) -> None:
    """Serve gRPC until SIGTERM or SIGINT, then drain. Raises CannotListen. SIGHUP loads the configuration again."""
    process = ServingProcess(lambda: router.config.server.drain_timeout)
    tls = server_tls(config)
    metrics_listener = _metrics_listener(config, process.ports)
    router = RouterApp(config, tls, process.link)
    metrics = None if metrics_listener is None else _metrics_server(router, metrics_listener, tls)
    reloader = Reloader(router, source, process.hangup, tls, process.link)
    try:
        grpc, admin = await start_grpc(router, process.ports), await start_admin_grpc(router, process.ports)
        if metrics is not None:
            metrics.start()
        reloader.start()
        with kept_low(lambda: router.active, lambda: router.held):
            await process.serves(grpc=grpc, metrics=None if metrics is None else metrics.url, admin_grpc=admin)
            await process.over.wait()
            if process.hands_over:
                router.hand_over()
                await process.until(lambda: router.empty, config.server.drain_timeout)
            await router.drain()
    finally:
        await reloader.close()
        await end(router)
        if metrics is not None:
            await metrics.stop()
        await process.close()
    _log.info("stopped")


def _metrics_server(router: RouterApp, listener: socket.socket, tls: ServerTls | None) -> "MetricsServer":
    from lexora_router.process.metrics_server import MetricsServer  # noqa: PLC0415 - a process that serves HTTP has no use for it

    context = None if tls is None else tls.switching_context()
    return MetricsServer(router.scrape, router.services.router.get_principal, listener, context)


def _metrics_listener(config: Config, ports: Ports) -> socket.socket | None:
    server = config.server
    return None if server.metrics_port is None else ports.listen("metrics", server.host, server.metrics_port, METRICS)


async def start_grpc(router: RouterApp, ports: Ports) -> str:
    """Start the router and its gRPC server; returns the address. Raises CannotListen."""
    server = router.config.server
    host = server.grpc_host or server.host
    return await _bound(router.start, host, ports.of_grpc("grpc", server.grpc_port), GRPC)


async def start_admin_grpc(router: RouterApp, ports: Ports) -> str | None:
    """Start the gRPC server of operators, if it is apart; returns its address. Raises CannotListen."""
    server = router.config.server
    if router.admin_grpc is None or server.admin_grpc_port is None:
        return None
    port = ports.of_grpc("admin_grpc", server.admin_grpc_port)
    return await _bound(router.admin_grpc.start, server.admin_host or server.host, port, ADMIN_GRPC)


async def _bound(start: Callable[[str, int], Awaitable[int]], host: str, port: int, settings: Settings) -> str:
    try:
        return address(host, await start(host, port))
    except OSError as error:
        if not isinstance(error.__cause__, RuntimeError):
            raise  # not gRPC's word for an address: a certificate file, for example
        if not host.startswith("unix:"):
            # gRPC does not say why: an ordinary socket gets the same error, with its reason.
            listen(host, port, settings).close()
        raise CannotListen(address(host, port), error, settings) from error


async def end(router: RouterApp) -> None:
    """Let answers that have just ended reach their clients, then close everything."""
    await asyncio.gather(*(server.stop(GRACE_SECONDS) for server in router.grpc_servers))
    await router.stop()
