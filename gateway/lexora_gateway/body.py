"""Reading of a request's body, bounded in bytes and in time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lexora_gateway.errors import Refused, request_timeout, too_large
from lexora_gateway.watch import ClientGone

if TYPE_CHECKING:
    from lexora_gateway.asgi import Headers, Message, Receive

# Timers of the event loop are exact to a millisecond.
_TICK = 0.001


async def read_body(receive: Receive, headers: Headers, limit: int, silence: float, end: float) -> bytes:
    """The whole body, at most `limit` bytes, silent for at most `silence` seconds, there by the loop's time `end`.

    Raises Refused: 413 as soon as the declared or the received length passes the limit, reading no further, 408 when the
    client is too slow. Raises ClientGone when it leaves before the end.
    """
    declared = headers.get(b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise Refused(too_large(limit))
    wait = _Wait(silence, end)
    try:
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            body: bytes = message.get("body", b"")
            if len(body) > limit:
                raise Refused(too_large(limit))
            return body
        return await _in_pieces(message, receive, limit, wait)
    except asyncio.CancelledError:
        # An outer cancellation at the same time leaves a count above 0 and must go on as one.
        if wait.over and wait.task.uncancel() == 0:
            raise Refused(request_timeout("The request body did not arrive in time.")) from None
        raise
    finally:
        wait.stop()


async def _in_pieces(message: Message, receive: Receive, limit: int, wait: _Wait) -> bytes:
    pieces: list[bytes] = []
    total = 0
    while message["type"] == "http.request":
        piece: bytes = message.get("body", b"")
        total += len(piece)
        if total > limit:
            raise Refused(too_large(limit))
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)
        if piece:
            wait.heard()
        message = await receive()
    raise ClientGone


class _Wait:
    """Cancels the task that reads when nothing was heard for too long; one timer, moved only when it runs out."""

    __slots__ = ("_end", "_heard_at", "_loop", "_silence", "_timer", "over", "task")

    def __init__(self, silence: float, end: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.over = False
        self._loop = task.get_loop()
        self._silence = silence
        self._end = end
        self._heard_at = now = self._loop.time()
        self._timer = self._loop.call_later(min(silence, end - now), self._check)

    def heard(self) -> None:
        """A piece came."""
        self._heard_at = self._loop.time()

    def stop(self) -> None:
        """All is read, or nothing more will be."""
        self._timer.cancel()

    def _check(self) -> None:
        left = min(self._heard_at + self._silence, self._end) - self._loop.time()
        if left > _TICK:
            self._timer = self._loop.call_later(left, self._check)
        else:
            self.over = True
            self.task.cancel()
