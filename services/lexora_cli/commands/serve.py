"""`lexora serve`."""

from typing import TYPE_CHECKING

import typer

from lexora_cli.fast_imports import fast_imports
from lexora_cli.options import ConfigFile, GrpcPort, Host, Model, Port, Url, Workers, engine_options

if TYPE_CHECKING:
    from lexora_router.config import Config
    from lexora_router.process.source import ConfigSource


def serve(
    *,
    config: ConfigFile = None,
    url: Url = None,
    model: Model = None,
    host: Host = None,
    port: Port = None,
    grpc_port: GrpcPort = None,
    workers: Workers = None,
) -> None:
    """Serve HTTP and gRPC, by one process or several.

    On this machine only, unless --host or server.host says otherwise. Clients need no key, unless auth.mode asks for one.
    With --url no configuration file is looked for.
    SIGTERM and Ctrl-C let running calls finish, a second one ends at once. SIGHUP loads the configuration again; of several
    workers it replaces one after the other where that is not enough.

    \b
    Examples:
      lexora serve
      lexora serve --url http://gpu1:8000 --host 0.0.0.0
      lexora serve --config lexora_config.yaml --port 8080
      lexora serve --workers auto
    """
    with fast_imports():
        from lexora_router.process.launch import launch
        from lexora_router.process.supervise import BOTH

    async def serve_both(config: "Config", source: "ConfigSource") -> None:
        with fast_imports():  # not in a supervisor
            from lexora_cli.serve_process import serve

        await serve(config, source)

    addresses = {"server.host": host, "server.grpc_host": host, "server.port": port, "server.grpc_port": grpc_port}
    options = addresses | {"server.workers": workers} | engine_options(url, model)
    raise typer.Exit(launch(config, options, serve_both, search=not url, serves=BOTH))
