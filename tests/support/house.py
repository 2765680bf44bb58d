"""A whole gateway in the test's own event loop: both wires, real sockets, and an inside that can be looked at."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from lexora_cli.http_server import HttpServer, buffered_bytes
from lexora_contract.inprocess import InProcessRouter
from lexora_gateway import DeferredApp
from lexora_router.config import Config
from lexora_router.process.app import RouterApp
from lexora_router.process.listening import HTTP, listen
from lexora_router.timers import Wheel
from tests.support.links import gauges


@dataclass
class House:
    """`http` is a base URL, `grpc` is host:port."""

    app: RouterApp
    http: str
    grpc: str

    def left(self) -> dict[str, Any]:
        """What calls hold, by name; empty when none is under way and all was given back."""
        wheel = Wheel.last
        timers = 0 if wheel is None else sum(map(len, wheel._slots.values()))
        pools = [backend.pool for backend in self.app._assembly.backends.values()]
        held = {
            "calls": self.app.active,
            "bytes": self.app.held,
            "timers": timers,
            "running": sum(pool.running for pool in pools),
            "waiting": sum(pool.waiting for pool in pools),
            **gauges(self.app),
        }
        return {name: number for name, number in held.items() if number}


@contextlib.asynccontextmanager
async def house(config: Config) -> AsyncIterator[House]:
    """`lexora serve` under this configuration, as `lexora_cli.serve` puts it together."""
    router, listener = RouterApp(config), listen("127.0.0.1", 0, HTTP)
    server = config.server
    app = DeferredApp(
        InProcessRouter(router.services),
        version="1",
        max_body_bytes=server.max_body_bytes,
        reading=buffered_bytes(server),
        max_request_timeout=server.max_request_timeout,
        stream_keepalive=server.stream_keepalive,
        trusts=router.trusts,
        client_of=router.client_of,
        metrics=router.scrape,
    )
    http = HttpServer(app, listener, server, None)
    try:
        port = await router.start("127.0.0.1", 0)
        await http.start()
        yield House(router, http.url, f"127.0.0.1:{port}")
    finally:
        await http.stop()
        await router.stop()
        listener.close()
        await asyncio.sleep(0)
