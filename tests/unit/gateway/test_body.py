import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from lexora_gateway.body import read_body
from lexora_gateway.buffered import BufferedBytes
from lexora_gateway.client_side import ClientGone
from lexora_gateway.errors import Refused
from lexora_gateway.request import Limits

SOON = 0.05
LIMIT = 6


async def read(
    pieces: Callable[[], Awaitable[Any]],
    headers: dict[bytes, bytes] | None = None,
    silence: float = 60.0,
    within: float = math.inf,
    buffered: BufferedBytes | None = None,
) -> bytes:
    client: Any = SimpleNamespace(headers=headers or {}, pairs=[*(headers or {}).items()], address="10.0.0.1", read=pieces)
    limits = Limits(LIMIT, 3600.0, silence, buffered or BufferedBytes(LIMIT, LIMIT))
    return await read_body(client, limits, asyncio.get_running_loop().time() + within)


class Pieces:
    """A body whose pieces are there at once, which counts how often it was asked for one."""

    def __init__(self, *pieces: bytes, more: bool = False) -> None:
        self.pieces = [(piece, more or index < len(pieces) - 1) for index, piece in enumerate(pieces)]
        self.asked = 0

    async def __call__(self) -> tuple[bytes, bool]:
        self.asked += 1
        if not self.pieces:
            raise ClientGone
        return self.pieces.pop(0)


@pytest.mark.parametrize("pieces", [(b"abcdef",), (b"abc", b"def"), (b"", b"abc", b"", b"def", b"")])
async def test_pieces_are_joined(pieces: tuple[bytes, ...]) -> None:
    assert await read(Pieces(*pieces)) == b"abcdef"


async def test_a_declared_length_is_refused_unread() -> None:
    receive = Pieces(b"abc")
    with pytest.raises(Refused) as refused:
        await read(receive, {b"content-length": b"7"})
    assert refused.value.failure.status == 413
    assert receive.asked == 0


@pytest.mark.parametrize("pieces", [(b"abcdefg",), (b"abcd", b"efg", b"hij")])
async def test_an_undeclared_length_is_refused_as_soon_as_it_shows(pieces: tuple[bytes, ...]) -> None:
    receive = Pieces(*pieces)
    with pytest.raises(Refused):
        await read(receive)
    assert receive.asked == min(len(pieces), 2)


@pytest.mark.parametrize("pieces", [(), (b"abc",)])
async def test_a_client_that_leaves_in_its_body_is_gone(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(ClientGone):
        await read(Pieces(*pieces, more=True))


@pytest.mark.parametrize(
    ("headers", "owners"),
    [
        ({}, ("address:10.0.0.1",)),
        ({b"x-forwarded-for": b"1.2.3.4"}, ("address:10.0.0.1",)),
        ({b"x-lexora-user": b"alice"}, ("user:alice",)),
    ],
)
async def test_bytes_count_for_their_owner_while_they_come(headers: dict[bytes, bytes], owners: tuple[str, ...]) -> None:
    buffered, seen = BufferedBytes(LIMIT, LIMIT), []
    pieces = Pieces(b"abc", b"def", b"", b"")

    async def watched() -> tuple[bytes, bool]:
        seen.append((buffered.held, set(buffered._by_owner)))
        return await pieces()

    assert await read(watched, headers, buffered=buffered) == b"abcdef"
    assert seen == [(0, set()), (3, {*owners}), (6, {*owners}), (6, {*owners})]
    assert (buffered.held, buffered._by_owner) == (0, {})


class Slow:
    """A body whose pieces come so many seconds apart; `last` ends the body, else it falls silent."""

    def __init__(self, pieces: int, apart: float, piece: bytes = b"a", last: bool = False) -> None:
        self.left = pieces
        self.apart = apart
        self.piece = piece
        self.last = last

    async def __call__(self) -> tuple[bytes, bool]:
        if self.left == 0:
            await asyncio.Event().wait()
        await asyncio.sleep(self.apart)
        self.left -= 1
        return self.piece, self.left > 0 or not self.last


async def refusal(receive: Slow, silence: float, within: float) -> float:
    """Seconds until the 408."""
    started = time.monotonic()
    with pytest.raises(Refused) as refused:
        await asyncio.wait_for(read(receive, None, silence, within), 20)
    assert (refused.value.failure.status, refused.value.failure.code) == (408, "request_timeout")
    assert (b"connection", b"close") in refused.value.failure.headers
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    return time.monotonic() - started


@pytest.mark.parametrize("pieces", [0, 1])
async def test_a_silent_body_is_refused(pieces: int) -> None:
    assert await refusal(Slow(pieces, 0), SOON, math.inf) >= SOON - 0.002


async def test_every_piece_prolongs_the_patience() -> None:
    # Far enough apart that a busy machine does not make a silence of its own.
    assert await read(Slow(6, 0.1, last=True), None, 0.5) == b"aaaaaa"
    assert await refusal(Slow(2, 0.1), 0.5, math.inf) >= 0.7 - 0.005


async def test_an_empty_piece_does_not() -> None:
    assert await refusal(Slow(1000, 0.01, b""), SOON, math.inf) < SOON * 10


async def test_the_time_of_the_call_bounds_a_body_that_drips() -> None:
    assert await refusal(Slow(1000, 0.02, b""), 60, SOON) < SOON * 10


async def test_an_outer_cancellation_of_the_reading_stays_one() -> None:
    task = asyncio.create_task(read(Slow(0, 0), None, 60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_no_timer_is_left_after_the_reading() -> None:
    assert await read(Pieces(b"abc"), None, SOON) == b"abc"
    # Cancelled by a timer left behind, this would raise.
    await asyncio.sleep(SOON * 2)
