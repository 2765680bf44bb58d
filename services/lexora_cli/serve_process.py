"""HTTP and gRPC in one process, on one event loop."""

from functools import partial

import structlog

from lexora_cli.http_server import HttpServer, buffered_bytes, hand_over, listen_for_operators
from lexora_cli.shared_sessions import SharedSessions
from lexora_contract.inprocess import InProcessRouter
from lexora_gateway import BufferedBytes, DeferredApp, Sessions, Surface
from lexora_router.config import Config
from lexora_router.process.app import RouterApp
from lexora_router.process.listening import HTTP
from lexora_router.process.process_memory import kept_low
from lexora_router.process.reload import Reloader
from lexora_router.process.serve import end, start_admin_grpc, start_grpc
from lexora_router.process.server_tls import server_tls
from lexora_router.process.serving_process import ServingProcess
from lexora_router.process.source import ConfigSource
from lexora_router.version import __version__

_log = structlog.get_logger("lexora")


async def serve(config: Config, source: ConfigSource) -> None:
    """Serve until SIGTERM or SIGINT, then drain. SIGHUP loads the configuration again.

    Raises CannotListen when an address cannot be had.
    """
    process = ServingProcess(lambda: router.config.server.drain_timeout)
    tls = server_tls(config)
    listener = process.ports.listen("http", config.server.host, config.server.port, HTTP)
    router = RouterApp(config, tls, process.link)
    reading = buffered_bytes(config.server)
    admin_listener = listen_for_operators(config.server, process.ports)
    sessions = Sessions()
    if process.link is not None:
        SharedSessions(sessions, process.link)
    app, server = partial(_app, router, reading, sessions), config.server
    http = HttpServer(app(Surface.ALL if admin_listener is None else Surface.CALLS), listener, server, tls)
    router.registry.register(http.facts)
    admin = None if admin_listener is None else HttpServer(app(Surface.OPERATORS), admin_listener, server, tls)
    reloader = Reloader(router, source, process.hangup, tls, process.link)
    try:
        grpc, admin_grpc = await start_grpc(router, process.ports), await start_admin_grpc(router, process.ports)
        await http.start()
        if admin is not None:
            await admin.start()
        reloader.start()
        with kept_low(lambda: router.active, lambda: router.held + reading.held):
            await process.serves(http=http.url, grpc=grpc, admin=None if admin is None else admin.url, admin_grpc=admin_grpc)
            await http.serve_until(process.over)
            if process.hands_over:
                router.hand_over()
                servers = [each for each in (http, admin) if each is not None]
                await hand_over(process, servers, lambda: router.empty, config.server.drain_timeout)
            http.drain()
            # Until the drain is over HTTP stays up: load balancers and clients get 503, and answers run to their ends.
            await router.drain()
    finally:
        await reloader.close()
        await http.stop()
        if admin is not None:
            await admin.stop()
        await end(router)
        await process.close()
    _log.info("stopped")


def _app(router: RouterApp, reading: BufferedBytes, sessions: Sessions, surface: Surface) -> DeferredApp:
    server = router.config.server
    return DeferredApp(
        InProcessRouter(router.services),
        version=__version__,
        max_body_bytes=server.max_body_bytes,
        reading=reading,
        max_request_timeout=server.max_request_timeout,
        stream_keepalive=server.stream_keepalive,
        trusts=router.trusts,
        client_of=router.client_of,
        metrics=router.scrape,
        surface=surface,
        sessions=sessions,
    )
