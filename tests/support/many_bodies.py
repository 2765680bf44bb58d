"""`python -m tests.support.many_bodies WIRE TARGET CALLS`: calls with a megabyte of body each, by http or grpc, until SIGTERM.

It prints a line of JSON twice a second: how many were sent, and what those with an answer came to (the status, with `+` where
it says when to come back). At most BESIDE calls are on their way at a time, so that this process holds little: a call that is
sent and has no answer after QUIET seconds waits in the gateway.
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

from lexora.v1.call_pb2 import Call
from lexora.v1.raw_pb2 import RawCall
from lexora.v1.router_pb2 import GenerateRequest
from lexora_contract.rpcs import ROUTER
from tests.support import wire
from tests.support.queueing import CHAT

MIB = 2**20
BESIDE = 512
QUIET = 1.0
CHANNELS = 8
_HEAD, _TAIL = b'{"model":"m","messages":[{"role":"user","content":"', b'"}]}'
BODY = _HEAD + b"x" * (MIB - len(_HEAD) - len(_TAIL)) + _TAIL


class Calls:
    """All of them, in one loop."""

    def __init__(self) -> None:
        self.sent = 0
        self.came_to = Counter[str]()
        self._beside = asyncio.Semaphore(BESIDE)

    async def run(self, call: Callable[[], Awaitable[str]], count: int) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell())
            for _ in range(count):
                await self._beside.acquire()
                group.create_task(self._one(call))

    async def _one(self, call: Callable[[], Awaitable[str]]) -> None:
        self.sent += 1
        release = asyncio.get_running_loop().call_later(QUIET, self._beside.release)
        status = await call()
        self.came_to[status] += 1
        if not release.cancelled() and release.when() > asyncio.get_running_loop().time():
            release.cancel()
            self._beside.release()

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
    methods = [each.unary_unary(f"/{ROUTER}/Generate", GenerateRequest.SerializeToString) for each in channels]
    request = GenerateRequest(call=Call(raw=RawCall(path=CHAT, body=BODY)))
    number = 0

    async def call() -> str:
        nonlocal number
        number += 1
        try:
            await methods[number % CHANNELS](request)
        except grpc.aio.AioRpcError as error:
            hinted = any(name == "grpc-retry-pushback-ms" for name, _ in error.trailing_metadata() or ())
            return error.code().name + ("+" if hinted else "")
        return "OK"

    return call


async def _main(way: str, target: str, count: str) -> None:
    await Calls().run(by_http(target) if way == "http" else by_grpc(target), int(count))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    asyncio.run(_main(*sys.argv[1:]))
