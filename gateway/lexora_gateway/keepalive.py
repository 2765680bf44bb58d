"""A stream that writes something in every silence, for balancers that cut connections on which nothing moves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lexora_contract.answer import Receipt
from lexora_contract.operations import Dialect
from lexora_gateway.errors import stream_expected
from lexora_gateway.response import Answer

if TYPE_CHECKING:
    from lexora_contract.answer import Head, Reply
    from lexora_gateway.asgi_types import Send
    from lexora_gateway.errors import Failure

# A comment (https://html.spec.whatwg.org/multipage/server-sent-events.html) is no event; Anthropic's API has one for it.
COMMENT = b": keepalive\n\n"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
# Asks the router for an empty message as soon as a call is known to stream.
ANNOUNCE = (("x-lexora-announce", "stream"),)
# Timers of the event loop are exact to a millisecond.
_TICK = 0.001


def filler_of(dialect: Dialect) -> bytes:
    """What the clients of a dialect take for a sign of life."""
    return PING if dialect is Dialect.ANTHROPIC else COMMENT


class KeptAnswer(Answer):
    """An answer that is never silent for longer than `seconds` once it is known to stream.

    When nothing has come by then, its head goes out as that of an event stream, and `filler` after it. A failure, or a whole
    answer, that comes later is an error event.
    """

    __slots__ = ("_filler", "_filling", "_is_writing", "_loop", "_seconds", "_timer", "_wrote_at")

    def __init__(self, send: Send, request_id: str, dialect: Dialect, *, seconds: float) -> None:
        super().__init__(send, request_id, dialect)
        self._seconds = seconds
        self._filler = filler_of(dialect)
        self._loop = asyncio.get_running_loop()
        self._wrote_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        # A write of the filler under way, which all others wait for; and one of the others.
        self._filling: asyncio.Task[None] | None = None
        self._is_writing = False

    def streams(self) -> None:
        """The call is known to stream."""
        if self._timer is None:
            self._wrote_at = self._loop.time()
            self._timer = self._loop.call_later(self._seconds, self._check)

    def close(self) -> None:
        """Nothing more will be written."""
        if self._timer is not None:
            self._timer.cancel()
        if self._filling is not None:
            self._filling.cancel()

    async def begin(self, head: Head | None, receipt: Receipt) -> None:
        """Send status and headers of a stream."""
        self._is_writing = True
        try:
            await super().begin(head, receipt)
        finally:
            self._wrote()

    async def piece(self, body: bytes) -> None:
        """Send a piece of a stream."""
        if self._filling is not None:
            await self._filling
        self._is_writing = True
        try:
            await super().piece(body)
        finally:
            self._wrote()

    async def end(self) -> None:
        """End a stream."""
        await self._settle()
        await super().end()

    async def reply(self, reply: Reply, receipt: Receipt) -> None:
        """Send the engine's whole answer, or say in the stream that has begun that there is one."""
        await self._settle()
        if self.started:
            await super().fail(stream_expected())
        else:
            await super().reply(reply, receipt)

    async def fail(self, failure: Failure) -> None:
        """Send a failure."""
        await self._settle()
        await super().fail(failure)

    def _wrote(self) -> None:
        self._is_writing = False
        self._wrote_at = self._loop.time()

    async def _settle(self) -> None:
        if self._timer is None:
            return
        self._timer.cancel()
        if self._filling is not None:
            await self._filling
            self._timer.cancel()

    def _check(self) -> None:
        left = self._wrote_at + self._seconds - self._loop.time()
        if self._is_writing:
            # The client does not read; it has more than enough to wake up for.
            left = self._seconds
        if left > _TICK:
            self._timer = self._loop.call_later(left, self._check)
        else:
            self._filling = self._loop.create_task(self._fill())

    async def _fill(self) -> None:
        try:
            if not self.started:
                await super().begin(None, Receipt())
            await super().piece(self._filler)
        finally:
            self._filling = None
        self._wrote_at = self._loop.time()
        self._timer = self._loop.call_later(self._seconds, self._check)
