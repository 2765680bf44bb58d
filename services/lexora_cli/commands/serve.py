"""`lexora serve`."""

import typer

from lexora_cli.fast_imports import fast_imports
from lexora_cli.options import ConfigFile, GrpcPort, Host, Model, Port, Url, engine_options


def serve(
    *,
    config: ConfigFile = None,
    url: Url = None,
    model: Model = None,
    host: Host = None,
    port: Port = None,
    grpc_port: GrpcPort = None,
) -> None:
    """Serve HTTP and gRPC in one process.

    On this machine only, unless --host or server.host says otherwise. Clients need no key, unless auth.mode asks for one.
    With --url no configuration file is looked for.
    SIGTERM and Ctrl-C let running calls finish, a second one ends at once.

    \b
    Examples:
      lexora serve
      lexora serve --url http://gpu1:8000 --host 0.0.0.0
      lexora serve --config lexora_config.yaml --port 8080
    """
    with fast_imports():
        from lexora_cli.serve_process import serve as serve_both
        from lexora_router.process.launch import launch

    addresses = {"server.host": host, "server.grpc_host": host, "server.port": port, "server.grpc_port": grpc_port}
    raise typer.Exit(launch(config, addresses | engine_options(url, model), serve_both, search=not url))
