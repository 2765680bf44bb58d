"""An engine inside the test's own event loop: every POST gets the script that the test laid down, probes get a page.

A script is a list of steps, as in `raw_server`: bytes to send, an Event to wait for, or a `Do`.
"""

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, cast

import httptools

from tests.support.raw_server import Do, RawRequest, Step, reply

DEADLINE_SECONDS = 20.0


class LoopEngine:
    """`async with LoopEngine("m") as engine`; `answer(...)` is the script of every POST until the next `answer`.

    `requests` are the POSTs that came, `gets` counts GETs; `left_at` are the instants (time.monotonic) at which a client
    left an exchange that was under way.
    """

    def __init__(self, *models: str) -> None:
        listing = {"object": "list", "data": [{"id": m, "object": "model", "max_model_len": 4096} for m in models]}
        self.pages: dict[str, Step] = {"/health": reply(b"{}"), "/v1/models": reply(json.dumps(listing).encode())}
        self.requests: list[RawRequest] = []
        self.gets = 0
        self.left_at: list[float] = []
        self.connections: set[_Connection] = set()
        self.port = 0
        self._script: tuple[Step, ...] = (reply(b"{}"),)
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.die()

    async def listen(self) -> None:
        """Begin to serve; after `die` again at the same port."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _Connection(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def die(self) -> None:
        """Close the port and every connection."""
        self._server.close()
        for connection in list(self.connections):
            connection.abort()
        await self.until(lambda: not self.connections)
        await self._server.wait_closed()

    def answer(self, *script: Step) -> None:
        """What every following POST gets."""
        self._script = script

    @property
    def busy(self) -> int:
        """Exchanges under way."""
        return sum(connection.busy for connection in self.connections)

    async def wait_requests(self, count: int = 1) -> None:
        """Return when so many POSTs have come in whole."""
        await self.until(lambda: len(self.requests) >= count)

    async def wait_left(self, count: int = 1) -> float:
        """The instant at which so many clients had left an exchange under way."""
        await self.until(lambda: len(self.left_at) >= count)
        return self.left_at[count - 1]

    async def until(self, done: Callable[[], bool]) -> None:
        """Return when something that the engine sees has become true."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not done():
                self._news.clear()
                await self._news.wait()

    def script_of(self, request: RawRequest) -> tuple[Step, ...]:
        """The steps of the answer to a request."""
        if request.method == "GET":
            self.gets += 1
            return (self.pages.get(request.target, reply(b"{}", status="404 Not Found")),)
        self.requests.append(request)
        return self._script

    def script_for(self, request: RawRequest, served: int) -> tuple[Step, ...]:
        """The same; `served` counts the POSTs that came before on the same connection."""
        return self.script_of(request)

    def notice(self) -> None:
        """Something has changed."""
        self._news.set()


class _Connection(asyncio.Protocol):
    """One connection, one exchange at a time."""

    def __init__(self, engine: LoopEngine) -> None:
        self._engine = engine
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._body = b""
        self._posts = 0
        self._headers: list[tuple[str, str]] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def abort(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._engine.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.connections.discard(self)
        if self._task is not None and self._task.cancel():
            self._engine.left_at.append(time.monotonic())
        self._engine.notice()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        method, target = self._parser.get_method().decode(), self._target.decode()
        request = RawRequest(method, target, self._headers, self._body)
        self._target, self._headers, self._body = b"", [], b""
        self._task = asyncio.create_task(self._play(self._engine.script_for(request, self._posts)))
        self._posts += request.method == "POST"
        self._engine.notice()

    async def _play(self, script: tuple[Step, ...]) -> None:
        for step in script:
            if isinstance(step, bytes):
                self._transport.write(step)
            elif isinstance(step, asyncio.Event):
                await step.wait()
            elif step is Do.HANG:
                await asyncio.Event().wait()
            else:
                self._task = None  # what follows is the engine's doing
                if step is Do.RESET:
                    connection = self._transport.get_extra_info("socket")
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self._transport.abort()
                self._transport.close()
                return
