"""`lexora serve`: HTTP and gRPC in one process, on one event loop."""

import structlog
from lexora_gateway.app import create_app

from lexora_cli.inprocess import InProcessRouter
from lexora_cli.runtime import HttpServer, address, listen, stop_event
from lexora_router.app import RouterApp
from lexora_router.config import Config
from lexora_router.version import __version__

_log = structlog.get_logger("lexora")


async def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises OSError when an address is taken."""
    server = config.server
    stop = stop_event()
    listener = listen(server.host, server.port)
    router = RouterApp(config)
    app = create_app(
        InProcessRouter(router.service),
        version=__version__,
        max_body_bytes=server.max_body_bytes,
        max_request_timeout=server.max_request_timeout,
        metrics=router.metrics,
    )
    http = HttpServer(app, listener)
    grpc_host = server.grpc_host or server.host
    try:
        grpc_port = await router.start(grpc_host, server.grpc_port)
        await http.start()
        _log.info("serving", http=f"http://{address(listener)}", grpc=f"{grpc_host}:{grpc_port}", version=__version__)
        await stop.wait()
        await router.drain()
    finally:
        await http.stop()
        await router.stop()
        listener.close()
    _log.info("stopped")
