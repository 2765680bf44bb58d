"""An engine with few slots behind a gateway, slots that are held until a queue has formed, and calls by both protocols."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import msgspec

from lexora.v1 import admin_pb2_grpc, call_pb2, router_pb2, router_pb2_grpc
from lexora.v1.options_pb2 import CallOptions
from lexora.v1.raw_pb2 import RawCall
from tests.support import load, wire
from tests.support.load import Answer, Client
from tests.support.servers import Gateway, Simulator, base_config

MODEL = "qwen3-32b"
CHAT = "/v1/chat/completions"


def gateway_for(sim: Simulator, folder: Path, slots: int, *, backend: dict[str, Any] | None = None, **sections: Any) -> Gateway:
    """A gateway with one backend of so many slots; `sections` are further ones of its configuration."""
    main = {"url": sim.url, "models": [MODEL], "max_concurrency": slots} | (backend or {})
    return Gateway(base_config(main=main) | sections, folder)


@asynccontextmanager
async def slots_held(one: Client, sim: Simulator, slots: int, *, model: str = MODEL) -> AsyncIterator[None]:
    """All slots have calls that get no answer; they leave at the end."""
    hanging = load.chat(model, 1, sim_fault="hang", user="holder")
    before = sim.stats()["requests"]
    async with load.held(one, hanging, slots):
        await asyncio.to_thread(wire.wait_until, lambda: sim.stats()["requests"] == before + slots, "slots to be taken")
        yield


async def queued(gateway: Gateway, number: int, seconds: float = 10.0) -> None:
    """Return when so many calls wait."""

    def wait() -> bool:
        return gateway.metric("lexora_queue_depth", backend="main") == number

    await asyncio.to_thread(wire.wait_until, wait, f"{number} calls to wait", seconds)


class Stub(router_pb2_grpc.RouterServiceStub, admin_pb2_grpc.AdminServiceStub):
    """Both services of a router."""

    def __init__(self, channel: Any) -> None:
        router_pb2_grpc.RouterServiceStub.__init__(self, channel)
        admin_pb2_grpc.AdminServiceStub.__init__(self, channel)


@asynccontextmanager
async def grpc_stub(gateway: Gateway) -> AsyncIterator[Any]:
    """A stub of the router on a channel of its own."""
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        yield Stub(channel)


def request(name: str, body: dict[str, Any], priority: int | None = None) -> router_pb2.GenerateRequest:
    """A chat call in the wire-faithful form."""
    options = CallOptions(request_id=name, priority=priority)
    return router_pb2.GenerateRequest(
        call=call_pb2.Call(options=options, raw=RawCall(path=CHAT, body=msgspec.json.encode(body)))
    )


async def by_grpc(
    stub: Any, name: str, body: dict[str, Any], priority: int | None = None, *, seconds: float | None = None
) -> Answer:
    """Make the call; `seconds` is its deadline. Raises AioRpcError."""
    sent = time.monotonic()
    reply = (await stub.Generate(request(name, body, priority), timeout=seconds)).raw
    return Answer(name, reply.head.status, sent, time.monotonic(), body=reply.body)


def chats(sim: Simulator, *, without: str = "held-") -> list[dict[str, Any]]:
    """The chat calls that the engine got, in the order in which it got them; not those that held its slots."""
    log = [call for call in sim.requests(100_000) if call["path"] == CHAT]
    return [call for call in log if not name_of(call).startswith(without)]


def name_of(call: dict[str, Any]) -> str:
    """Request id of a logged call."""
    return str(call["headers"]["x-request-id"])
