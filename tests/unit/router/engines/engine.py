"""A backend of the router in front of a scripted server."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.unit.router.support import Client, Event, Frames, make_call

from lexora_contract.answer import Reply
from lexora_contract.port import Sink
from lexora_router.call import Call
from lexora_router.config import Config
from lexora_router.fleet.backend import Backend, build_backends

UNARY = b'{"model":"m","messages":[]}'


def make_backend(url: str, server: dict[str, Any] | None = None, **fields: Any) -> Backend:
    backend = {"url": url, "connect_timeout": 1.0} | fields
    if "urls" in fields:
        del backend["url"]
    config = Config.model_validate({"routing": {"backends": {"main": backend}}, "server": server or {}})
    return build_backends(config, time.monotonic)["main"]


class Engine:
    """One backend with one endpoint."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.endpoint = backend.endpoints[0]

    async def ask(self, call: Call, sink: Sink, model: str | None = None) -> None:
        call.target = self.backend.target(call.model if model is None else model)
        async with asyncio.timeout(20):
            await self.endpoint.attempt(call, sink)

    async def unary(self, **changes: Any) -> Reply:
        call = make_call(**({"stream": False, "body": UNARY} | changes))
        client = Client()
        await self.ask(call, client)
        [reply] = client.events
        assert isinstance(reply, Reply)
        return reply

    async def stream(self, **changes: Any) -> tuple[Call, list[Event], bytes]:
        call, client = make_call(**changes), Client()
        await self.ask(call, client)
        assert all(isinstance(event, Frames) for event in client.events[1:])
        return call, client.events, client.data


@asynccontextmanager
async def engine(url: str, **fields: Any) -> AsyncIterator[Engine]:
    backend = make_backend(url, **fields)
    try:
        yield Engine(backend)
    finally:
        backend.transport.close()
        await asyncio.sleep(0)  # aborted sockets are closed in the loop's next round
