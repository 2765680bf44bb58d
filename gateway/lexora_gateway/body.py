"""Reading of a request's body, bounded in bytes and in time."""

from __future__ import annotations

import asyncio
from io import BytesIO
from typing import TYPE_CHECKING

from lexora_contract.content_coding import STEP_BYTES
from lexora_gateway.content_coding import decoder_of
from lexora_gateway.errors import Refused, request_timeout, too_large
from lexora_gateway.request import charged_of, hops_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lexora_gateway.asgi_types import Headers
    from lexora_gateway.client_side import ClientSide
    from lexora_gateway.content_coding import RequestDecoder
    from lexora_gateway.request import Limits

# Timers of the event loop are exact to a millisecond.
_TICK = 0.001
# Bodies that come in one read are not counted: nothing holds them before they are whole.
_SMALL_BYTES = 64 * 1024


def arrived_body(client: ClientSide, limits: Limits) -> bytes | None:
    """The whole body, if it came with its head and has no content coding. Raises Refused (413)."""
    if b"content-encoding" in client.headers:
        return None
    body = client.arrived()
    return None if body is None else _within(limits, body)


async def read_body(client: ClientSide, limits: Limits, end: float, account: str = "") -> bytes:
    """The whole body without its content codings, at most `limits.max_body_bytes`, there by the loop's time `end`.

    Raises Refused: 413 as soon as the declared or the received length passes the limit, reading no further, 408 when the
    client is too slow, 415 for a coding that is not taken, 429 and 503 when too much is being read already. Raises ClientGone
    when the client leaves before the end.
    """
    headers = client.headers
    declared = _declared(headers)
    if declared > limits.max_body_bytes:
        raise Refused(too_large(limits.max_body_bytes))
    decoder = decoder_of(_codings(client)) if b"content-encoding" in headers else None
    owners = (f"tenant:{account}",) if account else _owners(client, limits)
    wait = _Wait(limits.body_silence, end)
    try:
        if declared > _SMALL_BYTES:
            limits.buffered.check(declared, owners)
        piece, more = await client.read()
        if decoder is None and not more:
            return _within(limits, piece)
        return await _Incoming(limits, owners, decoder).read(piece, client, wait, more=more)
    except asyncio.CancelledError:
        # An outer cancellation at the same time leaves a count above 0 and must go on as one.
        if wait.over and wait.task.uncancel() == 0:
            raise Refused(request_timeout("The request body did not arrive in time.")) from None
        raise
    finally:
        wait.stop()


class _Incoming:
    """A body that comes in pieces, or has to be decoded. What it holds is counted until it is whole."""

    def __init__(self, limits: Limits, owners: Sequence[str], decoder: RequestDecoder | None) -> None:
        self._limit = limits.max_body_bytes
        self._buffered = limits.buffered
        self._owners = owners
        self._decoder = decoder
        # Gives its bytes away without another copy, and one this large grows in place.
        self._body = BytesIO()
        self._size = 0

    async def read(self, piece: bytes, client: ClientSide, wait: _Wait, *, more: bool) -> bytes:
        """The body that begins with `piece`."""
        received = 0
        try:
            while True:
                received += len(piece)
                if received > self._limit:
                    raise Refused(too_large(self._limit))
                if self._decoder is None:
                    self._add(piece)
                else:
                    await self._add_decoded(self._decoder, piece)
                if not more:
                    if self._decoder is not None:
                        self._decoder.end()
                    return self._body.getvalue()
                if piece:
                    wait.heard()
                piece, more = await client.read()
        finally:
            self._buffered.give_back(self._size, self._owners)

    def _add(self, piece: bytes) -> None:
        if self._size + len(piece) > self._limit:
            raise Refused(too_large(self._limit))
        self._buffered.add(len(piece), self._owners)
        self._size += len(piece)
        self._body.write(piece)

    async def _add_decoded(self, decoder: RequestDecoder, piece: bytes) -> None:
        for step in decoder.decode(piece):
            self._add(step)
            if len(step) >= STEP_BYTES:
                await asyncio.sleep(0)  # a piece may unfold to the whole limit: others have their turn between two steps


def announced(headers: Headers) -> int | None:
    """Bytes of a body that will come in several reads, 0 when its length is not declared; None for a small one."""
    if b"transfer-encoding" in headers:
        return 0
    declared = _declared(headers)
    return declared if declared > _SMALL_BYTES else None


def _declared(headers: Headers) -> int:
    declared = headers.get(b"content-length", b"0")
    return int(declared) if declared.isdigit() else 0


def _within(limits: Limits, body: bytes) -> bytes:
    if len(body) > limits.max_body_bytes:
        raise Refused(too_large(limits.max_body_bytes))
    return body


def _codings(client: ClientSide) -> list[bytes]:
    """Every content-encoding header: several of them are one list."""
    return [value for name, value in client.pairs if name == b"content-encoding"]


def _owners(client: ClientSide, limits: Limits) -> tuple[str, ...]:
    """Whose share a body takes: that of the user whom a trusted proxy names, else of the client's address, if it has one."""
    if user := charged_of(client.headers):
        return (f"user:{user}",)
    hops = hops_of(client)
    address = limits.client_of(hops[0][1]) if hops and hops[0][0] == "x-forwarded-for" else ""
    return (f"address:{address}",) if address else ()


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
