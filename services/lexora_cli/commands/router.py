"""`lexora router`."""

import typer

from lexora_cli.options import ConfigFile, GrpcPort, Host


def router(config: ConfigFile = None, host: Host = None, grpc_port: GrpcPort = None) -> None:
    """Serve the router alone, over gRPC.

    [bold]Examples[/bold]

      lexora router
      lexora router --config lexora_config.yaml --host 127.0.0.1 --grpc-port 50051
    """
    from lexora_router.launch import launch
    from lexora_router.serve import serve

    raise typer.Exit(launch(config, {"grpc_host": host, "grpc_port": grpc_port}, serve))
