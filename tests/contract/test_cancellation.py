"""A client that leaves, in each phase: the engine's connection is closed at once, and every gauge is back to zero."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lexora.v1 import stats_pb2
from lexora_contract.port import CallContext
from tests.contract.messages import FORMS, STREAM_FORMS, answer, delta, streamed, unary
from tests.support.links import Link
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import Do, Step, chunk, reply, stream_head

WITHIN_SECONDS = 2.0  # of a busy machine; without the cancellation the engine would go on for ever
UNARY: dict[str, tuple[Step, ...]] = {
    "no answer": (Do.HANG,),
    "half a body": (reply(answer())[:-9], Do.HANG),
}
STREAMED: dict[str, tuple[Step, ...]] = {
    "no answer": (Do.HANG,),
    "no event": (stream_head(), Do.HANG),
    "in mid-answer": (stream_head(), chunk(delta("a")), Do.HANG),
    "in mid-event": (stream_head(), chunk(delta("a") + b"data: "), Do.HANG),
}


async def cancel(task: "asyncio.Task[Any]", engine: LoopEngine) -> None:
    """Cancel the call; the engine's connection goes in time."""
    await engine.wait_requests()
    cancelled = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await engine.wait_left() - cancelled < WITHIN_SECONDS


async def check_stats(link: Link) -> None:
    """The call is counted as cancelled, and as nothing else."""
    await link.idle()
    stats = (await link.ask("get_stats", stats_pb2.GetStatsRequest())).only
    assert (stats.calls.total, stats.calls.cancelled, stats.calls.failed) == (1, 1, 0)
    assert stats.active_calls == 0
    assert {load.in_flight for load in stats.endpoints.values()} == {0}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("phase", UNARY)
async def test_a_unary_call(link: Link, engine: LoopEngine, form: str, phase: str) -> None:
    engine.answer(*UNARY[phase])
    await cancel(asyncio.create_task(link.generate(unary(**FORMS[form]))), engine)
    await check_stats(link)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("phase", STREAMED)
async def test_a_stream(link: Link, engine: LoopEngine, form: str, phase: str) -> None:
    engine.answer(*STREAMED[phase])
    begun = asyncio.Event()
    task = asyncio.create_task(link.stream(streamed(**STREAM_FORMS[form]), seen=lambda _: begun.set()))
    if phase.startswith("in"):
        await begun.wait()
    await cancel(task, engine)
    await check_stats(link)


async def test_a_stream_that_is_read_no_further(link: Link, engine: LoopEngine) -> None:
    """A client that stops reading holds the engine back; when it leaves, the engine is let go at once."""
    block = chunk(delta("x" * 65_000))
    engine.answer(stream_head(), *[block] * 400, Do.HANG)
    stuck = asyncio.Event()

    async def read_one(_: Any) -> None:
        stuck.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(_stream(link, read_one))
    await stuck.wait()
    await cancel(task, engine)
    await check_stats(link)


def _stream(link: Link, emit: Callable[[Any], Awaitable[None]]) -> Any:
    return link.port.stream(streamed(**STREAM_FORMS["raw"]), CallContext(), emit)


async def test_an_emit_that_fails_lets_the_engine_go(link: Link, engine: LoopEngine) -> None:
    engine.answer(*STREAMED["in mid-answer"])

    async def refuse(_: Any) -> None:
        raise KeyError

    # In process a consumer's bug is the router's to report; over a channel it stays the consumer's.
    with pytest.raises(Exception, match=r"Internal error|^$"):
        await _stream(link, refuse)
    await engine.wait_left()
    await link.idle()
