"""A load of gRPC calls from a process of its own.

python -m tests.bench.grpc_load PORT generate|stream AT_ONCE SECONDS     prints {"ok": calls, "messages": streamed}
python -m tests.bench.grpc_load PORT record                              one answer of each kind, for grpc_echo
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc
import uvloop

from lexora.v1 import call_pb2, chat_pb2, router_pb2

SERVICE = "lexora.v1.RouterService"
MODEL, TOKENS, GAP_S = "bench-100-10", 100, 0.01


def chat() -> call_pb2.Call:
    """A typed chat, as a service of one's own sends it."""
    text = "Which of the two bridges was closed last winter, and for how long did the ferry run instead? " * 4
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, text=text)
    return call_pb2.Call(chat=chat_pb2.ChatRequest(model=MODEL, messages=[message]))


class Client:
    """Calls over one channel; answers stay bytes, as their sense is not the subject."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._generate: Any = channel.unary_unary(f"/{SERVICE}/Generate", router_pb2.GenerateRequest.SerializeToString)
        self._stream: Any = channel.unary_stream(f"/{SERVICE}/Stream", router_pb2.StreamRequest.SerializeToString)

    async def generate(self) -> list[bytes]:
        return [await self._generate(router_pb2.GenerateRequest(call=chat()))]

    async def stream(self) -> list[bytes]:
        return [message async for message in self._stream(router_pb2.StreamRequest(call=chat()))]


async def load(client: Client, kind: str, at_once: int, seconds: float) -> dict[str, int]:
    """As many calls at once until the time is over; those that have begun are read to their end."""
    loop = asyncio.get_running_loop()
    counts = {"ok": 0, "messages": 0}
    call = client.generate if kind == "generate" else client.stream
    until = loop.time() + seconds

    async def caller(number: int) -> None:
        await asyncio.sleep(TOKENS * GAP_S * number / at_once if kind == "stream" else 0)
        while loop.time() < until:
            messages = await call()
            counts["messages"] += len(messages)
            counts["ok"] += 1

    async with asyncio.TaskGroup() as group:
        for number in range(at_once):
            group.create_task(caller(number))
    return counts


async def record(client: Client) -> dict[str, object]:
    """One answer of each kind, as hexadecimal digits."""
    [reply] = await client.generate()
    return {"generate": reply.hex(), "stream": [message.hex() for message in await client.stream()]}


async def main(port: str, what: str, *rest: str) -> None:
    """Does what the command line says."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        client = Client(channel)
        done = await record(client) if what == "record" else await load(client, what, int(rest[0]), float(rest[1]))
        print(json.dumps(done))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(*sys.argv[1:]))
