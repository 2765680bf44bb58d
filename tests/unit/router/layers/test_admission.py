import asyncio

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.support import (
    HANG,
    HEAD,
    Client,
    FakeEndpoint,
    FakeLease,
    Frames,
    Scripted,
    Step,
    make_call,
    make_pool,
    make_target,
)

from lexora_router.call import Call
from lexora_router.errors import DeadlineExceeded, NoHealthyEndpoint, QueueFull, RouterError, UpstreamBroken
from lexora_router.layers.admission import Admission
from lexora_router.layers.deadline import Deadline

STREAMING: list[Step] = [HEAD, Frames(b"a")]


class Pool:
    """Gives each call the same place, after a wait; or refuses it."""

    def __init__(self, lease: FakeLease, *, wait: float = 0.0, refusal: RouterError | None = None) -> None:
        self.lease = lease
        self.wait = wait
        self.refusal = refusal
        self.calls: list[Call] = []

    async def admit(self, call: Call) -> FakeLease:
        self.calls.append(call)
        if self.wait:
            await asyncio.sleep(self.wait)
        if self.refusal is not None:
            raise self.refusal
        return self.lease


def admission(*steps: Step, **fields: object) -> tuple[Admission, Scripted, Pool]:
    inner, pool = Scripted(*steps), Pool(FakeLease(FakeEndpoint()), **fields)  # type: ignore[arg-type]  # as Pool's
    return Admission(inner, pools={"main": pool, "other": Pool(FakeLease())}), inner, pool


@jumping
async def test_a_call_holds_its_place_to_its_end() -> None:
    held: list[bool] = []
    layer, inner, pool = admission(*STREAMING, 3.0)
    call = make_call(target=make_target())
    client = Client(lambda _: held.append(call.lease is pool.lease and not pool.lease.closed))
    await layer(call, client)
    assert client.events == STREAMING
    assert held == [True, True]
    assert inner.calls == pool.calls == [call]
    assert (pool.lease.closed, call.lease) == (1, None)


@jumping
async def test_the_target_s_own_pool_is_asked() -> None:
    layer, _, pool = admission()
    await layer(make_call(target=make_target(backend="other")), Client())
    assert pool.calls == []


@pytest.mark.parametrize("before", [[], STREAMING], ids=["before the first event", "after it"])
@jumping
async def test_a_failure_gives_the_place_back(before: list[Step]) -> None:
    error = UpstreamBroken("gone")
    layer, _, pool = admission(*before, error)
    call = make_call(target=make_target())
    with pytest.raises(UpstreamBroken) as raised:
        await layer(call, Client())
    assert raised.value is error
    assert (pool.lease.closed, call.lease) == (1, None)


@pytest.mark.parametrize("refusal", [QueueFull("full", 3), NoHealthyEndpoint("all down")])
@jumping
async def test_a_call_that_is_not_admitted_goes_no_further(refusal: RouterError) -> None:
    layer, inner, pool = admission(refusal=refusal)
    with pytest.raises(type(refusal)):
        await layer(make_call(target=make_target()), Client())
    assert (inner.calls, pool.lease.closed) == ([], 0)


@jumping
async def test_a_client_that_leaves_while_it_waits() -> None:
    layer, inner, pool = admission(wait=1e6)
    task = asyncio.create_task(layer(make_call(target=make_target()), Client()))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (inner.calls, pool.lease.closed) == ([], 0)


@pytest.mark.parametrize("before", [[], STREAMING], ids=["before the first event", "while streaming"])
@jumping
async def test_a_client_that_leaves_gives_the_place_back(before: list[Step]) -> None:
    layer, inner, pool = admission(*before, HANG)
    client = Client()
    task = asyncio.create_task(layer(make_call(target=make_target()), client))
    await inner.begun()
    await client.got(len(before))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (inner.cancelled, pool.lease.closed) == (1, 1)


@pytest.mark.parametrize("steps", [[], [HEAD, HANG]], ids=["in the queue", "while streaming"])
@jumping
async def test_a_deadline_leaves_nothing_behind(steps: list[Step]) -> None:
    endpoint = FakeEndpoint(limit=1)
    pool = make_pool(endpoint)
    holder = await pool.admit(make_call()) if not steps else None
    inner = Scripted(*steps)
    with pytest.raises(DeadlineExceeded):
        await Deadline(Admission(inner, pools={"main": pool}))(make_call(target=make_target(), deadline=now() + 3.0), Client())
    assert now() == pytest.approx(1003.0)
    assert len(inner.calls) == (1 if steps else 0)
    if holder is not None:
        holder.close()
    assert (endpoint.in_flight, pool.waiting) == (0, 0)
