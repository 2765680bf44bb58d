"""`lexora serve`."""

import typer

from lexora_cli.options import ConfigFile, GrpcPort, Host, Port


def serve(config: ConfigFile = None, host: Host = None, port: Port = None, grpc_port: GrpcPort = None) -> None:
    """Serve HTTP and gRPC in one process.

    SIGTERM and Ctrl-C let running calls finish, a second one ends at once.

    [bold]Examples[/bold]

      lexora serve
      lexora serve --config lexora_config.yaml --port 8080
      LEXORA_VLLM__URL=http://gpu1:8000 lexora serve --host 127.0.0.1
    """
    from lexora_cli.serving import serve as serve_both
    from lexora_router.launch import launch

    changes = {"host": host, "grpc_host": host, "port": port, "grpc_port": grpc_port}
    raise typer.Exit(launch(config, changes, serve_both))
