"""`python -m tests.support.many_bodies WIRE TARGET STATS CALLS`: calls with a megabyte each, by http or grpc, until SIGTERM.

It prints a line of JSON twice a second: how many were sent, and what those with an answer came to (the status, with `+` where
it says when to come back). At most BESIDE are on their way at a time, neither answered nor in the gateway's queue by what its
/stats at STATS say: so this process holds little.
"""

import asyncio
import contextlib
import json
import resource
import signal
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import grpc
import httpx

from lexora.v1.call_pb2 import Call
from lexora.v1.raw_pb2 import RawCall
from lexora.v1.router_pb2 import GenerateRequest
from lexora_contract.rpcs import ROUTER
from tests.support import wire
from tests.support.queueing import CHAT

MIB = 2**20
BESIDE = 64
LOOK_SECONDS = 0.2
CHANNELS = 8
_HEAD, _TAIL = b'{"model":"m","messages":[{"role":"user","content":"', b'"}]}'
BODY = _HEAD + b"x" * (MIB - len(_HEAD) - len(_TAIL)) + _TAIL


class Calls:
    """All of them, in one loop."""

    def __init__(self) -> None:
        self.sent = 0
        self.waiting = 0
        self.came_to = Counter[str]()

    async def run(self, call: Callable[[], Awaitable[str]], stats: str, count: int) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell())
            async with httpx.AsyncClient(verify=False, timeout=60) as http:
                while self.sent < count:
                    self.waiting = (await http.get(stats)).json()["queue_depth"]["main"]
                    room = BESIDE - (self.sent - self.came_to.total() - self.waiting)
                    for _ in range(min(room, count - self.sent)):
                        self.sent += 1
                        group.create_task(self._one(call))
                    await asyncio.sleep(LOOK_SECONDS if room <= 0 else 0.02)

    async def _one(self, call: Callable[[], Awaitable[str]]) -> None:
        self.came_to[await call()] += 1

    async def _tell(self) -> None:
        while True:
            print("BODIES", json.dumps({"sent": self.sent, "came_to": self.came_to}), flush=True)
            await asyncio.sleep(0.5)


def by_http(target: str) -> Callable[[], Awaitable[str]]:
    """A connection for each call, as of so many clients."""
    where, data = urlsplit(target), wire.request(CHAT, BODY)

    async def call() -> str:
        loop = asyncio.get_running_loop()
        with socket.socket() as connection:
            connection.setblocking(False)
            await loop.sock_connect(connection, (where.hostname, where.port))
            with contextlib.suppress(ConnectionError):  # refused before all of it was sent
                await loop.sock_sendall(connection, data)
            head = b""
            with contextlib.suppress(ConnectionError):
                while b"\r\n\r\n" not in head and (piece := await loop.sock_recv(connection, 4096)):
                    head += piece
            return head[9:12].decode() + ("+" if b"\r\nretry-after: " in head else "") if head else "no answer"

    return call


def by_grpc(target: str) -> Callable[[], Awaitable[str]]:
    """Some channels, with many calls on each."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    channels = [grpc.aio.insecure_channel(target, options=options) for _ in range(CHANNELS)]
    # As streams of one message, which are the same on the wire: those of a unary call are kept by grpc until it has its answer.
    methods = [each.stream_unary(f"/{ROUTER}/Generate", GenerateRequest.SerializeToString) for each in channels]
    request = GenerateRequest(call=Call(raw=RawCall(path=CHAT, body=BODY)))
    number = 0

    async def call() -> str:
        nonlocal number
        number += 1
        try:
            asked = methods[number % CHANNELS]()
            await asked.write(request)
            await asked.done_writing()
            await asked
        except grpc.aio.AioRpcError as error:
            hinted = any(name == "grpc-retry-pushback-ms" for name, _ in error.trailing_metadata() or ())
            return error.code().name + ("+" if hinted else "")
        return "OK"

    return call


async def _main(way: str, target: str, stats: str, count: str) -> None:
    await Calls().run(by_http(target) if way == "http" else by_grpc(target), stats, int(count))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    asyncio.run(_main(*sys.argv[1:]))
