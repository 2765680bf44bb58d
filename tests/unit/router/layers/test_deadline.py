import asyncio

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.support import HANG, HEAD, Client, Frames, Scripted, Step, make_call

from lexora_router.errors import DeadlineExceeded, UpstreamBroken
from lexora_router.layers.deadline import Deadline

STREAMING: list[Step] = [HEAD, Frames(b"a")]


@pytest.mark.parametrize("allowed", [None, 30.0])
@jumping
async def test_a_call_within_its_deadline_passes(allowed: float | None) -> None:
    client = Client()
    deadline = None if allowed is None else now() + allowed
    await Deadline(Scripted(*STREAMING, 29.0))(make_call(started=now(), deadline=deadline), client)
    assert client.events == STREAMING


@jumping
async def test_without_a_deadline_nothing_ends_a_call() -> None:
    start = now()
    await Deadline(Scripted(1e6))(make_call(), Client())
    assert now() - start >= 1e6


@pytest.mark.parametrize("before", [[], STREAMING], ids=["before the first event", "after it"])
@jumping
async def test_the_deadline_ends_the_call_on_time(before: list[Step]) -> None:
    inner, client, start = Scripted(*before, HANG), Client(), now()
    with pytest.raises(DeadlineExceeded, match=r"deadline of 30 s"):
        await Deadline(inner)(make_call(started=start, deadline=start + 30), client)
    assert now() - start == pytest.approx(30)
    assert client.events == before
    assert (inner.cancelled, inner.running) == (1, 0)


@jumping
async def test_a_deadline_that_has_passed_ends_the_call_at_its_first_wait() -> None:
    inner, start = Scripted(HANG), now()
    with pytest.raises(DeadlineExceeded):
        await Deadline(inner)(make_call(started=start, deadline=start - 1), Client())
    assert now() == start


@pytest.mark.parametrize("before", [[], STREAMING], ids=["before the first event", "after it"])
@pytest.mark.parametrize("error", [UpstreamBroken("gone"), TimeoutError("somebody else's")])
@jumping
async def test_other_errors_stay_what_they_are(error: Exception, before: list[Step]) -> None:
    with pytest.raises(type(error)) as raised:
        await Deadline(Scripted(*before, error))(make_call(deadline=now() + 30), Client())
    assert raised.value is error


@pytest.mark.parametrize("before", [[], STREAMING], ids=["while waiting", "while streaming"])
@jumping
async def test_a_client_that_leaves_is_no_deadline(before: list[Step]) -> None:
    inner, client = Scripted(*before, HANG), Client()
    task = asyncio.create_task(Deadline(inner)(make_call(deadline=now() + 30), client))
    await inner.begun()
    await client.got(len(before))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (inner.cancelled, inner.running) == (1, 0)


@jumping
async def test_a_slow_client_does_not_move_the_deadline() -> None:
    start = now()
    call = make_call(started=start, deadline=start + 30)
    call.flow.pause()
    with pytest.raises(DeadlineExceeded):
        await Deadline(Scripted(*STREAMING, HANG))(call, Client())
    assert now() - start == pytest.approx(30, rel=1 / 30)
