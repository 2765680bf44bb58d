"""`lexora router`."""

from typing import TYPE_CHECKING

import typer

from lexora_cli.fast_imports import fast_imports
from lexora_cli.options import ConfigFile, GrpcPort, Host, MetricsPort, Workers

if TYPE_CHECKING:
    from lexora_router.config import Config
    from lexora_router.process.source import ConfigSource


def router(
    config: ConfigFile = None,
    host: Host = None,
    grpc_port: GrpcPort = None,
    metrics_port: MetricsPort = None,
    workers: Workers = None,
) -> None:
    """Serve the router alone, over gRPC.

    Its metrics are at http://HOST:9464/metrics.

    \b
    Examples:
      lexora router
      lexora router --config lexora_config.yaml --grpc-port 50051
      lexora router --workers auto
    """
    with fast_imports():
        from lexora_router.process.launch import launch, router_options
        from lexora_router.process.supervise import ROUTER

    async def serve_router(config: "Config", source: "ConfigSource") -> None:
        with fast_imports():  # not in a supervisor
            from lexora_router.process.serve import serve

        await serve(config, source)

    options = router_options(host, grpc_port, metrics_port) | {"server.workers": workers}
    raise typer.Exit(launch(config, options, serve_router, serves=ROUTER))
