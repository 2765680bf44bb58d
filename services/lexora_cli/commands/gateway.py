"""`lexora gateway`."""

from typing import TYPE_CHECKING

import typer

from lexora_cli.fast_imports import fast_imports
from lexora_cli.options import ConfigFile, Host, Port, Workers
from lexora_cli.reach import Reach, asks_router

if TYPE_CHECKING:
    from lexora_router.config import Config
    from lexora_router.process.source import ConfigSource


@asks_router
def gateway(
    router: Reach,
    config: ConfigFile = None,
    host: Host = None,
    port: Port = None,
    workers: Workers = None,
) -> None:
    """Serve HTTP in front of a router elsewhere.

    Of the configuration only server.host, server.port, server.workers, server.tls, its limits and logging matter here.
    --tls, --ca, --cert and --key are about the way to the router.

    \b
    Examples:
      lexora gateway --router 127.0.0.1:50051
      lexora gateway --router router.internal:50051 --ca ca.pem --cert gateway.pem
      lexora gateway --router unix:/run/lexora/router.sock --port 8080
    """
    router.credentials()  # what is wrong with the files is said as of an option

    with fast_imports():
        from lexora_router.process.launch import launch
        from lexora_router.process.supervise import GATEWAY

    async def serve_gateway(config: "Config", source: "ConfigSource") -> None:
        with fast_imports():  # not in a supervisor
            from lexora_cli.gateway_process import serve

        await serve(router, config, source)

    options = {"server.host": host, "server.port": port, "server.workers": workers}
    raise typer.Exit(launch(config, options, serve_gateway, serves=GATEWAY))
