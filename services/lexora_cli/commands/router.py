"""`lexora router`."""

import typer

from lexora_cli.fast_imports import fast_imports
from lexora_cli.options import ConfigFile, GrpcPort, Host, MetricsPort


def router(config: ConfigFile = None, host: Host = None, grpc_port: GrpcPort = None, metrics_port: MetricsPort = None) -> None:
    """Serve the router alone, over gRPC.

    Its metrics are at http://HOST:9464/metrics.

    \b
    Examples:
      lexora router
      lexora router --config lexora_config.yaml --grpc-port 50051
    """
    with fast_imports():
        from lexora_router.process.launch import launch
        from lexora_router.process.serve import router_options, serve

    raise typer.Exit(launch(config, router_options(host, grpc_port, metrics_port), serve))
