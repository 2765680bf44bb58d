"""`lexora gateway`."""

import typer

from lexora_cli.fast_imports import fast_imports
from lexora_cli.options import ConfigFile, Host, Port
from lexora_cli.reach import Reach, asks_router


@asks_router
def gateway(
    router: Reach,
    config: ConfigFile = None,
    host: Host = None,
    port: Port = None,
) -> None:
    """Serve HTTP in front of a router elsewhere.

    Of the configuration only server.host, server.port, server.tls, its limits and logging matter here. --tls, --ca, --cert and
    --key are about the way to the router.

    \b
    Examples:
      lexora gateway --router 127.0.0.1:50051
      lexora gateway --router router.internal:50051 --ca ca.pem --cert gateway.pem
      lexora gateway --router unix:/run/lexora/router.sock --port 8080
    """
    from functools import partial

    router.credentials()  # what is wrong with the files is said as of an option

    with fast_imports():
        from lexora_cli.gateway_process import serve
        from lexora_router.process.launch import launch

    raise typer.Exit(launch(config, {"server.host": host, "server.port": port}, partial(serve, router)))
