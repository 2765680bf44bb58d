"""`python -m tests.support.crowd HTTP GRPC KEY`: clients that hold what they can, and guess keys, until SIGTERM.

It prints a line of JSON five times a second: how many of each kind it holds now, and what the others came to. What ends begins
again. After SIGUSR1 nothing more is sent and nothing begins again.
"""

import asyncio
import contextlib
import json
import random
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
from lexora_router.access.key_format import new_key
from tests.support import wire

CHAT = "/v1/chat/completions"
IDLE, BODIES, STALLED, GUESSERS = 2000, 500, 200, 100
DRIP_SECONDS = 0.5
GUESS_SECONDS = 0.2
SPREAD_SECONDS = 3.0  # in which they come
DEAF_SECONDS = 6.0  # a client that never reads sees no end: it leaves by itself, later than the gateway ends the call
AT_ONCE = 50  # that connect at a time
CALL = b'{"model":"m","messages":[]}'
STREAM = b'{"model":"m","messages":[],"stream":true}'


class Crowd:
    """All of them, in one loop. `said` counts the answers, by kind and status."""

    def __init__(self, http: str, target: str, key: str) -> None:
        where = urlsplit(http)
        self._address = (where.hostname, where.port)
        self._target = target
        self._key = {"authorization": f"Bearer {key}"}
        self._calm = asyncio.Event()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self.held = Counter[str]()
        self.said = Counter[str]()

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._calm.set)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell())
            for work, count in (
                (self._hold, IDLE),
                (self._drip, BODIES),
                (self._stall, STALLED),
                (self._guess_http, GUESSERS // 2),
                (self._guess_grpc, GUESSERS // 2),
            ):
                for number in range(count):
                    group.create_task(self._later(work, number / count))

    async def _later(self, work: Callable[[], Awaitable[None]], share: float) -> None:
        """Each of them has a time of its own: a crowd is no choir."""
        await asyncio.sleep(share * SPREAD_SECONDS)
        await work()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with self._at_once:
            return await asyncio.open_connection(*self._address)

    async def _hold(self) -> None:
        while not self._calm.is_set():
            reader, _ = await self._connect()
            self.held["idle"] += 1
            await reader.read(1)
            self.held["idle"] -= 1

    async def _drip(self) -> None:
        head = wire.request(CHAT, headers={"content-length": "100000"} | self._key)
        while not self._calm.is_set():
            reader, writer = await self._connect()
            writer.write(head)
            self.held["bodies"] += 1
            answer = asyncio.create_task(reader.read())
            while not answer.done() and not self._calm.is_set():
                writer.write(b" ")
                await asyncio.wait([answer], timeout=DRIP_SECONDS)
            with contextlib.suppress(ConnectionError):
                self.said[f"body {(await answer)[9:12].decode()}"] += 1
            self.held["bodies"] -= 1
            writer.transport.abort()

    async def _stall(self) -> None:
        """Ask for a stream, and read nothing of it."""
        loop = asyncio.get_running_loop()
        while not self._calm.is_set():
            with socket.socket() as client:
                client.setblocking(False)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                async with self._at_once:
                    await loop.sock_connect(client, self._address)
                await loop.sock_sendall(client, wire.request(CHAT, STREAM, headers=self._key))
                self.held["stalled"] += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._calm.wait(), random.uniform(0.7, 1.3) * DEAF_SECONDS)
                self.held["stalled"] -= 1

    async def _guess_http(self) -> None:
        reader, writer = await self._connect()
        while not self._calm.is_set():
            writer.write(wire.request(CHAT, CALL, headers={"x-api-key": new_key().text}))
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            self.said[f"guess {head[9:12].decode()}"] += 1
            await asyncio.sleep(random.uniform(0.5, 1.5) * GUESS_SECONDS)

    async def _guess_grpc(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self._target, options=options) as channel:
            method = channel.unary_unary(f"/{ROUTER}/Generate", GenerateRequest.SerializeToString)
            request = GenerateRequest(call=Call(raw=RawCall(path=CHAT, body=CALL)))
            while not self._calm.is_set():
                try:
                    await method(request, metadata=(("authorization", f"Bearer {new_key().text}"),))
                    self.said["guess OK"] += 1
                except grpc.aio.AioRpcError as error:
                    self.said[f"guess {error.code().name}"] += 1
                await asyncio.sleep(random.uniform(0.5, 1.5) * GUESS_SECONDS)

    async def _tell(self) -> None:
        while True:
            print("CROWD", json.dumps({"held": self.held, "said": self.said, "calm": self._calm.is_set()}), flush=True)
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    asyncio.run(Crowd(*sys.argv[1:]).run())
