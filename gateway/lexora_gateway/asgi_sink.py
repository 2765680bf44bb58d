"""The client's side of a call behind an ASGI server: pieces wait in a queue until `send` takes them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lexora_contract.answer import Receipt

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from lexora_contract.answer import Head, Reply
    from lexora_contract.port import Flow
    from lexora_gateway.response import Answer

# Bytes that wait for the server to take them; beyond it the engine is read no further.
MAX_WAITING = 64 * 1024


class AsgiSink:
    """A ClientSink that writes one answer: frames at once, a whole reply at the end."""

    __slots__ = ("_answer", "_flow", "_head", "_pieces", "_receipt", "_reply", "_waiting", "_wake")

    def __init__(self, answer: Answer, flow: Flow) -> None:
        self._answer = answer
        self._flow = flow
        self._receipt = Receipt()
        self._head: Head | None = None
        self._reply: Reply | None = None
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._wake: asyncio.Future[None] | None = None

    def accepted(self, receipt: Receipt, *, streams: bool) -> None:
        """The request is understood."""
        self._receipt = receipt
        if streams:
            self._answer.streams()

    def head(self, head: Head) -> None:
        """Status and headers of a stream, which travel with its first frames."""
        self._head = head

    def frames(self, data: bytes) -> None:
        """Whole events."""
        self._pieces.append(data)
        self._waiting += len(data)
        if self._waiting > MAX_WAITING and not self._flow.paused:
            self._flow.pause()
        self._notify()

    def reply(self, reply: Reply) -> None:
        """A whole answer."""
        self._reply = reply

    async def served(self, work: Awaitable[None]) -> None:
        """Await `work`, which fills this sink, and write all that it gives; what it had given when it failed as well."""
        writer = asyncio.create_task(self._write())
        try:
            try:
                await work
            finally:
                self._pieces.append(b"")  # no more
                self._notify()
            await writer
        except asyncio.CancelledError:
            writer.cancel()
            raise
        except BaseException:
            await writer
            raise

    async def end(self) -> None:
        """All is written: end the answer, or give it whole."""
        if self._reply is not None:
            await self._answer.reply(self._reply, self._receipt)
        elif self._answer.started:
            await self._answer.end()
        else:
            raise RuntimeError("the router's stream ended without an answer")

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._pieces:
                self._wake = loop.create_future()
                await self._wake
            pieces, self._pieces, self._waiting = self._pieces, [], 0
            ends = pieces[-1] == b""
            if data := b"".join(pieces):
                if not self._answer.started:
                    await self._answer.begin(self._head, self._receipt)
                await self._answer.piece(data)
            if self._flow.paused:
                self._flow.resume()
            if ends:
                return
