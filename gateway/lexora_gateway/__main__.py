"""`python -m lexora_gateway --router HOST:PORT`: the facade in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import structlog
import uvicorn

from lexora_contract.channel import ChannelRouter
from lexora_gateway.app import create_app
from lexora_gateway.process_metrics import process_metrics
from lexora_gateway.serve import GatewayServer, log_router, server_config

if TYPE_CHECKING:
    from collections.abc import Sequence

_MIB = 1024 * 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser("python -m lexora_gateway", description="Spirrow-Lexora's HTTP facade.")
    parser.add_argument("--router", required=True, help="the router: HOST:PORT or unix:PATH")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8001, help="port to listen on; 0 picks a free one")
    parser.add_argument("--max-body-bytes", type=int, default=32 * _MIB, help="largest request body")
    options = parser.parse_args(arguments)
    # JSON, in which a path that a client chose is harmless on a terminal; the log for people is that of `lexora gateway`.
    steps = structlog.processors
    structlog.configure([steps.add_log_level, steps.TimeStamper("iso"), steps.format_exc_info, steps.JSONRenderer()])
    # The loop of uvicorn's choice: uvloop where it is installed.
    factory = uvicorn.Config("", loop="auto").get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(options.router, options.host, options.port, options.max_body_bytes))


async def _serve(target: str, host: str, port: int, max_body_bytes: int) -> None:
    router = ChannelRouter(target, max_send_bytes=max_body_bytes + _MIB, log=log_router)
    app = create_app(
        router,
        version=version("spirrow-lexora"),
        max_body_bytes=max_body_bytes,
        metrics=process_metrics,
        metrics_alone=True,
    )
    config = server_config(app, host=host, port=port)
    listener = config.bind_socket()
    listener.setblocking(False)
    await GatewayServer(config, _announce, router.close).serve(sockets=[listener])


def _announce(address: str) -> None:
    sys.stdout.write(f"serving on {address}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
