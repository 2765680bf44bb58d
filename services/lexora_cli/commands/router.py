"""`lexora router`."""

import typer

from lexora_cli.options import ConfigFile, GrpcPort, Host


def router(config: ConfigFile = None, host: Host = None, grpc_port: GrpcPort = None) -> None:
    """Serve the router alone, over gRPC.

    [bold]Examples[/bold]

      lexora router
      lexora router --config lexora_config.yaml --host 127.0.0.1 --grpc-port 50051
    """
    from lexora_router.launch import launch  # noqa: PLC0415 - start-up time
    from lexora_router.serve import serve  # noqa: PLC0415 - start-up time

    raise typer.Exit(launch(config, {"grpc_host": host, "grpc_port": grpc_port}, serve))
