"""The port over each store: in memory, in a coordinator over a unix socket, and in a real Valkey."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex
from tempfile import TemporaryDirectory

import pytest
from msgspec import msgpack

from lexora_router.state.address import parse
from lexora_router.state.coordinator import Coordinator
from lexora_router.state.memory import InMemoryState, Store
from lexora_router.state.port import Ask, Batch, SharedState, StateUnavailable
from lexora_router.state.socket_state import SocketState
from lexora_router.state.valkey_state import ValkeyState
from tests.contract.state.tally import TALLY, TallyAnswer, TallyRequest
from tests.support.valkey import ValkeyProcess

PROGRAMS = {"tally": TALLY}
Two = tuple[SharedState, SharedState]


@pytest.fixture(params=["memory", "socket", "valkey"])
async def two(request: pytest.FixtureRequest, server: ValkeyProcess) -> AsyncIterator[Two]:
    """Two members' ways to the same empty store."""
    made = {"memory": _in_memory, "socket": _in_coordinator, "valkey": lambda: _in_valkey(server)}[request.param]
    async with made() as both:
        for each in both:
            await each.open()
        yield both
        for each in both:
            await each.close()


@asynccontextmanager
async def _in_memory() -> AsyncIterator[Two]:
    state = InMemoryState(Store(PROGRAMS), time.monotonic)
    yield state, state


@asynccontextmanager
async def _in_coordinator() -> AsyncIterator[Two]:
    coordinator = Coordinator(PROGRAMS, time.monotonic)
    with TemporaryDirectory() as folder:
        path = f"{folder}/s"
        await coordinator.start(path)
        yield SocketState(path), SocketState(path)
        await coordinator.stop()


@asynccontextmanager
async def _in_valkey(server: ValkeyProcess) -> AsyncIterator[Two]:
    namespace = token_hex(4)
    yield (
        ValkeyState(parse(server.url), PROGRAMS, namespace=namespace),
        ValkeyState(parse(server.url), PROGRAMS, namespace=namespace),
    )


def report(member: str, number: int, add: float | None, *, join: bool = False) -> Batch:
    request = TallyRequest(add, [0.5, 2], "grüße")
    return Batch(member, 3.0, number, join, (Ask("tally", msgpack.encode(request)),))


def tally(packed: bytes) -> TallyAnswer:
    return msgpack.decode(packed, type=TallyAnswer)


async def test_exchanges_of_two_members_meet(two: Two) -> None:
    one, other = two
    first = await one.exchange(report("a", 1, 5, join=True))
    assert (first.known, first.members, tally(first.answers[0]).total) == (True, 1, 5)
    second = await other.exchange(report("b", 1, 7, join=True))
    assert (second.members, tally(second.answers[0]).by) == (2, {"a": 5, "b": 7})
    assert tally(second.answers[0]).note == "grüße"
    assert (await one.exchange(Batch("c", 3.0, 1))).known is False
    with pytest.raises(StateUnavailable, match="behind a later one"):
        await one.exchange(report("a", 1, 5))
    await _usable(one)
    await one.leave("a")
    third = await other.exchange(report("b", 2, 7))
    assert (third.members, tally(third.answers[0]).by) == (1, {"b": 7})


async def test_news_come_with_their_program_and_member(two: Two) -> None:
    one, other = two
    heard = asyncio.Queue[tuple[str, str]]()
    other.on_news(lambda program, member: heard.put_nowait((program, member)))
    await one.exchange(report("a", 1, 0, join=True))
    await _until_news_flow(one, heard)
    await one.exchange(report("a", 1000, 9))
    assert await asyncio.wait_for(heard.get(), 5) == ("tally", "a")
    await one.exchange(report("a", 1001, 9))  # nothing is new
    await one.leave("a")
    assert await asyncio.wait_for(heard.get(), 5) == ("tally", "a")
    assert heard.empty()


async def _until_news_flow(one: SharedState, heard: "asyncio.Queue[tuple[str, str]]") -> None:
    """News need a connection of their own, which comes a little later."""
    for number in range(2, 999):
        await one.exchange(report("a", number, number))
        try:
            await asyncio.wait_for(heard.get(), 0.02)
        except TimeoutError:
            continue
        break
    while not heard.empty():
        heard.get_nowait()


async def _usable(state: SharedState) -> None:
    """An error may have closed the connection."""
    await state.open()


async def test_a_program_that_is_not_there_and_a_request_that_is_none_change_nothing(two: Two) -> None:
    one, other = two
    await other.exchange(Batch("b", 3.0, 1, join=True))
    for asks in ((Ask("nothing", b"\x80"),), (Ask("tally", msgpack.encode(TallyRequest(3))), Ask("nothing", b"\x80"))):
        with pytest.raises(StateUnavailable, match="no program nothing"):
            await one.exchange(Batch("a", 3.0, 1, True, asks))
        await _usable(one)
    assert (await other.exchange(report("b", 2, None))).members == 1
