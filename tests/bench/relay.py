"""The floor: a relay of two asyncio protocols on uvloop, with llhttp on both sides and nothing in between.

No policy, no log, no look into a body: bytes in, bytes out. What a gateway in Python costs above this is its own work.

    python -m tests.bench.relay http://127.0.0.1:PORT       prints "listening on 127.0.0.1:PORT"
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import uvloop


class Client(asyncio.Protocol):
    """One client's connection: a request at a time, sent on as it came."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.request = bytearray()
        self.engine: Engine | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.request += data
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        request = bytes(self.request)
        self.request.clear()
        if self.relay.idle:
            self.relay.idle.pop().serve(self, request)
        else:
            self.connecting = asyncio.ensure_future(self.relay.connect(self, request))

    def pause_writing(self) -> None:
        if self.engine:
            self.engine.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.engine:
            self.engine.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.engine:
            self.engine.transport.abort()


class Engine(asyncio.Protocol):
    """One connection to the engine: its answers go to the client in one call stack."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.client: Client | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpResponseParser(self)

    def serve(self, client: Client, request: bytes) -> None:
        self.client, client.engine = client, self
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self.client:
            self.client.transport.write(data)
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        if self.client:
            self.client.engine = None
            self.client = None
        self.relay.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self in self.relay.idle:
            self.relay.idle.remove(self)
        if self.client:
            self.client.engine = None
            self.client.transport.abort()


class Relay:
    """The connections to one engine."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.idle: list[Engine] = []

    async def connect(self, client: Client, request: bytes) -> None:
        _, engine = await asyncio.get_running_loop().create_connection(lambda: Engine(self), "127.0.0.1", self.port)
        engine.serve(client, request)


async def serve(engine: str) -> None:
    """Serves on a free port of the loopback until the process is ended."""
    relay = Relay(int(engine.rpartition(":")[2]))
    server = await asyncio.get_running_loop().create_server(lambda: Client(relay), "127.0.0.1", 0, backlog=4096)
    print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))
