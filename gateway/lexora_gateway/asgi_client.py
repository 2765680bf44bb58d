"""The client's side of a call behind any ASGI server: what is written waits in a queue until the server takes it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from lexora_contract.port import Flow
from lexora_gateway.asgi_types import certificate_of, headers_of
from lexora_gateway.client_side import ClientGone
from lexora_gateway.headers import number

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from lexora_gateway.asgi_types import HeaderList, Message, Receive, Scope, Send

# Bytes that wait for the server to take them; beyond it the engine is read no further.
MAX_WAITING_BYTES = 64 * 1024


class AsgiClient:
    """A ClientSide over `receive` and `send`. The call has a task of its own, which is cancelled when the client leaves."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.path: str = scope["path"]
        self.pairs: HeaderList = scope["headers"]
        self.headers = headers_of(scope)
        client = scope.get("client")
        self.address: str = client[0] if client else ""
        self.certificate = certificate_of(scope)
        self.flow = Flow()
        self.started = False
        self._receive = receive
        self._send = send
        self._is_open = True
        self._head: Message | None = None  # that waits for the first of its body
        self._queue: deque[Message] = deque()
        self._waiting = 0
        self._more = asyncio.Event()
        self._call: asyncio.Task[None]
        self._leaving: asyncio.Task[None] | None = None

    async def run(self, serve: Coroutine[Any, Any, None]) -> None:
        """Return when the answer that `serve` gives is sent, or the client is gone."""
        self._call = asyncio.create_task(serve)
        self._call.add_done_callback(lambda _: self._more.set())
        try:
            await self._pump()
        finally:
            self._is_open = False
            if self._leaving is not None:
                self._leaving.cancel()
            self._call.cancel()
            await asyncio.wait((self._call,))
        if not self._call.cancelled():
            self._call.result()

    def arrived(self) -> bytes | None:
        """Nothing is certain before it is received."""
        return None

    async def read(self) -> tuple[bytes, bool]:
        """The next piece of the body, and whether there will be more. Raises ClientGone."""
        message = await self._receive()
        if message["type"] != "http.request":
            self._is_open = False
            raise ClientGone
        more: bool = message.get("more_body", False)
        if not more:
            self._leaving = asyncio.create_task(self._await_leaving())
        return message.get("body", b""), more

    def whole(self, status: int, headers: HeaderList, body: bytes) -> None:
        """Send a whole answer."""
        headers.append((b"content-length", number(len(body))))
        self.start(status, headers)
        self._put(body, more=False)

    def start(self, status: int, headers: HeaderList) -> None:
        """Begin an answer."""
        self.started = True
        self._head = {"type": "http.response.start", "status": status, "headers": headers}

    def write(self, data: bytes) -> None:
        """Send a piece of the answer."""
        if data:
            self._put(data, more=True)

    def end(self) -> None:
        """The answer is complete."""
        self._put(b"", more=False)

    def _put(self, data: bytes, *, more: bool) -> None:
        if not self._is_open:
            return
        if self._head is not None:
            self._queue.append(self._head)
            self._head = None
        self._queue.append({"type": "http.response.body", "body": data, "more_body": more})
        self._waiting += len(data)
        if self._waiting > MAX_WAITING_BYTES and not self.flow.paused:
            self.flow.pause()
        self._more.set()

    async def _pump(self) -> None:
        while self._is_open:
            while self._queue:
                message = self._queue.popleft()
                self._waiting -= len(message.get("body", b""))
                await self._send(message)
            if self.flow.paused:
                self.flow.resume()
            if self._call.done() and not self._queue:
                return
            self._more.clear()
            await self._more.wait()

    async def _await_leaving(self) -> None:
        """Servers report a finished answer as a disconnect too: then the call is over as well."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._is_open = False
        self._call.cancel()
