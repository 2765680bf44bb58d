"""`python -m tests.support.asgi_server ROUTER [SECONDS]`: the facade's application on uvicorn as it is, with its own HTTP.

SECONDS is the longest silence of a stream. The router is another process.
"""

import asyncio
import sys

import uvicorn

from lexora_contract.channel import ChannelRouter
from lexora_gateway import GatewayServer, process_metrics
from lexora_gateway.app import create_app

MIB = 1024 * 1024


async def main(router: str, seconds: float | None = None) -> None:
    app = create_app(
        ChannelRouter(router, max_send_bytes=9 * MIB, max_receive_bytes=64 * MIB, log=print),
        version="0",
        max_body_bytes=8 * MIB,
        metrics=process_metrics,
        stream_keepalive=seconds,
    )
    await GatewayServer(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"), announce).serve()


def announce(base: str) -> None:
    print(f"serving http={base}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(float, sys.argv[2:])))
