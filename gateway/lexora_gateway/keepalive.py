"""A stream that writes something in every silence, for balancers that cut connections on which nothing moves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lexora_contract.operations import Dialect
from lexora_gateway.errors import stream_expected
from lexora_gateway.response import Answer

if TYPE_CHECKING:
    from lexora_contract.answer import Head
    from lexora_gateway.client_side import ClientSide
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
    answer, that comes later is an error event. One timer, moved only when it runs out.
    """

    __slots__ = ("_filler", "_loop", "_seconds", "_timer", "_wrote_at")

    def __init__(self, client: ClientSide, request_id: str, dialect: Dialect, *, seconds: float) -> None:
        super().__init__(client, request_id, dialect)
        self._seconds = seconds
        self._filler = filler_of(dialect)
        self._loop = asyncio.get_running_loop()
        self._wrote_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def streams(self) -> None:
        """The call is known to stream."""
        if self._timer is None:
            self._wrote_at = self._loop.time()
            self._timer = self._loop.call_later(self._seconds, self._check)

    def close(self) -> None:
        """Nothing more will be written."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def head(self, head: Head | None) -> None:
        """Status and headers of a stream, unless its head is out already."""
        if not self._client.started:
            super().head(head)

    def frames(self, data: bytes) -> None:
        """Whole events of a stream."""
        self._client.write(data)
        self._wrote_at = self._loop.time()

    def finish(self) -> None:
        """Send the whole reply, or say in the stream that has begun that there is one; or end the stream."""
        self.close()
        if self._reply is not None and self._client.started:
            super().fail(stream_expected())
        else:
            super().finish()

    def fail(self, failure: Failure) -> None:
        """Send a failure."""
        self.close()
        super().fail(failure)

    def _check(self) -> None:
        left = self._wrote_at + self._seconds - self._loop.time()
        if self._client.flow.paused:
            # The client does not read; it has more than enough to wake up for.
            left = self._seconds
        elif left <= _TICK:
            if not self._client.started:
                super().head(None)
            self.frames(self._filler)
            left = self._seconds
        self._timer = self._loop.call_later(left, self._check)
