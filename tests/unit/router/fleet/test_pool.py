import asyncio
import random

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.fleet.work import Work
from tests.unit.router.support import FakeEndpoint, make_call, make_pool

from lexora_contract.priority import HIGH, LOW
from lexora_router.errors import QueueFull
from lexora_router.fleet.pool import Pool
from lexora_router.fleet.shares import Charged, FairShares, Standing

# -- slots


@jumping
async def test_no_slot_is_free_while_a_call_waits_and_no_limit_is_exceeded() -> None:
    endpoints = [FakeEndpoint(limit=3, address=f"http://e:{i}") for i in range(2)]
    pool, chance = make_pool(*endpoints, max_size=1000), random.Random(3)
    most = [0, 0]

    async def call(delay: float, seconds: float) -> None:
        await asyncio.sleep(delay)
        lease = await pool.admit(make_call(priority=chance.randrange(101)))
        await lease.next()
        for i, endpoint in enumerate(endpoints):
            most[i] = max(most[i], endpoint.in_flight)
        await asyncio.sleep(seconds)
        lease.close()
        assert not pool.waiting or not any(endpoint.has_slot() for endpoint in endpoints)

    async with asyncio.TaskGroup() as group:
        for _ in range(500):
            group.create_task(call(chance.uniform(0, 100), chance.uniform(0, 2)))
    assert most == [3, 3]
    Work(pool).idle()


@jumping
async def test_without_a_limit_nobody_waits() -> None:
    work = Work(make_pool(FakeEndpoint(limit=None)))
    for number in range(1000):
        await work.add(str(number))
    assert (len(work.served), work.pool.waiting) == (1000, 0)
    await work.done()
    work.idle()


@jumping
async def test_a_burst_is_spread_because_a_slot_counts_when_it_is_chosen() -> None:
    pool = make_pool(*(FakeEndpoint(address=f"http://e:{i}") for i in range(2)))
    leases = await asyncio.gather(*(pool.admit(make_call()) for _ in range(20)))
    assert [endpoint.in_flight for endpoint in pool.endpoints] == [10, 10]
    for lease in leases:
        lease.close()
    Work(pool).idle()


@jumping
async def test_closing_twice_gives_one_slot_back() -> None:
    pool = make_pool(FakeEndpoint(limit=2))
    first, second = await pool.admit(make_call()), await pool.admit(make_call())
    first.close()
    first.close()
    assert pool.endpoints[0].in_flight == 1
    second.close()
    Work(pool).idle()


# -- order


@jumping
async def test_tokens_are_charged_while_they_come() -> None:
    """A stream that runs for long is charged before it ends."""
    work = Work(make_pool(FakeEndpoint(limit=2), timeout=1e6))
    await work.add("stream", 1e3, tokens=1000, user="streamer")
    await work.add("holder", 1.0, user="nobody")
    for number in range(3):
        await work.add(f"streamer-{number}", user="streamer")
    for number in range(3):
        await work.add(f"other-{number}", user="other")
    await asyncio.sleep(100)
    await work.stop()
    assert work.served[2:] == ["other-0", "other-1", "other-2", "streamer-0", "streamer-1", "streamer-2"]


@jumping
async def test_not_all_running_calls_are_looked_at_for_each_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    charged: list[Charged] = []
    charge = FairShares.charge

    def counted(shares: FairShares, lease: Charged) -> None:
        charged.append(lease)
        charge(shares, lease)

    monkeypatch.setattr(FairShares, "charge", counted)
    work = Work(make_pool(FakeEndpoint(limit=50)))
    for number in range(100):  # fifty run and end together, before the next look
        await work.add(str(number), 0.04)
    await work.done()
    assert len(work.served) == 100
    assert 100 <= len(charged) <= 100 + 2 * 50


@jumping
async def test_an_admitted_call_has_the_priority_that_its_tenant_may_have() -> None:
    """It is what an engine that schedules by priority gets."""
    pool = make_pool(FakeEndpoint(), standing=lambda _: Standing(30, 1.0))
    call = make_call(priority=HIGH)
    assert (pool.forecast(call).position, call.priority) == (0, HIGH)
    (await pool.admit(call)).close()
    assert call.priority == 30


# -- leaving


@jumping
async def test_a_call_that_leaves_leaves_the_queue_at_once_and_is_never_dispatched() -> None:
    work = Work(make_pool(FakeEndpoint(limit=1)))
    await work.add("holder", 10.0)
    leaver = await work.add("leaver")
    await work.add("stayer")
    leaver.cancel()
    await asyncio.sleep(0)
    assert work.pool.waiting == 1
    await work.done()
    assert work.served == ["holder", "stayer"]
    assert work.at["stayer"] == pytest.approx(1010.0)
    work.idle()


@pytest.mark.parametrize("cancel_first", [True, False])
@jumping
async def test_a_slot_given_to_who_leaves_in_the_same_turn_goes_to_the_next(cancel_first: bool) -> None:
    work = Work(make_pool(FakeEndpoint(limit=1)))
    lease = await work.pool.admit(make_call())
    leaver = await work.add("leaver")
    await work.add("stayer")
    if cancel_first:
        leaver.cancel()
        lease.close()
    else:
        lease.close()
        leaver.cancel()
    await work.done()
    assert work.served == ["stayer"]
    assert work.at["stayer"] == pytest.approx(1000.0)
    work.idle()


@jumping
async def test_a_slot_given_to_the_only_one_that_leaves_is_free() -> None:
    work = Work(make_pool(FakeEndpoint(limit=1)))
    lease = await work.pool.admit(make_call())
    leaver = await work.add("leaver")
    lease.close()
    leaver.cancel()
    await work.done()
    work.idle()
    await work.add("next")
    assert work.served == ["next"]
    await work.done()


@jumping
async def test_a_call_cancelled_while_it_runs_gives_its_slot_to_the_next() -> None:
    work = Work(make_pool(FakeEndpoint(limit=1)))
    runner = await work.add("runner", 100.0)
    await work.add("next")
    await asyncio.sleep(5)
    runner.cancel()
    await work.done()
    assert work.at["next"] == pytest.approx(1005.0)
    work.idle()


# -- refusals


async def experienced(pool: Pool, seconds: float) -> Work:
    """A pool that has seen calls of this length, and whose slots are taken by another."""
    work = Work(pool)
    for number in range(5):
        await work.add(f"past-{number}", seconds)
        await work.done()
    await work.add("holder", seconds)
    return work


@jumping
async def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    work = await experienced(make_pool(FakeEndpoint(limit=1)), 10.0)
    await work.add("waiting")
    start = now()
    with pytest.raises(QueueFull, match=r"about 20\.0 s, but the call's deadline is in 15\.0 s") as raised:
        await work.pool.admit(make_call(deadline=now() + 15.0))
    assert (now(), raised.value.retry_after, raised.value.cause) == (start, 20, "deadline")
    accepted = await work.add("accepted", deadline=now() + 25.0)
    await accepted
    await work.done()
    work.idle()


@jumping
async def test_a_deadline_is_not_judged_by_a_wait_that_is_over() -> None:
    """Nobody finishes for an hour, and nobody waits: that says nothing about how fast slots come back."""
    work = await experienced(make_pool(FakeEndpoint(limit=1)), 1.0)
    leaver = await work.add("leaver")
    leaver.cancel()
    await work.done()
    await asyncio.sleep(3600)
    await work.add("holder-2", 1.0)
    await work.add("waiter", deadline=now() + 10.0)
    await work.done()
    assert work.served[-1] == "waiter"


@jumping
async def test_a_call_of_high_priority_is_not_refused_for_those_behind_it() -> None:
    work = await experienced(make_pool(FakeEndpoint(limit=1), aging=1e9), 10.0)
    for number in range(20):
        await work.add(f"low-{number}", priority=LOW)
    with pytest.raises(QueueFull):
        await work.pool.admit(make_call(priority=LOW, deadline=now() + 30.0))
    await work.add("high", priority=HIGH, deadline=now() + 30.0)
    await asyncio.sleep(15)
    assert work.served[work.served.index("holder") + 1] == "high"
    await work.stop()
    work.idle()


@jumping
async def test_bodies_that_wait_are_bounded_in_all() -> None:
    work = Work(make_pool(FakeEndpoint(limit=1), max_bytes=100))
    work.pool.foresee(10**9)  # a free slot takes whatever comes
    await work.add("served", 5.0, body=bytes(1000))
    await work.add("waiting", body=bytes(60))
    refused = r"is full: it holds 60 bytes of request bodies, and this one has 41 \(queue\.max_bytes: 100\)"
    with pytest.raises(QueueFull, match=refused) as raised:
        await work.pool.admit(make_call(body=bytes(41)))
    assert raised.value.cause == "queue_full"
    with pytest.raises(QueueFull, match=refused):
        work.pool.foresee(41)
    forecast = work.pool.forecast(make_call(body=bytes(41)))
    assert isinstance(forecast.refusal, QueueFull)
    work.pool.foresee(40)
    await work.add("leaving", body=bytes(40))
    assert work.pool.waiting_bytes == 100
    work.tasks["leaving"].cancel()
    await work.done()
    assert (work.served, work.pool.waiting_bytes) == (["served", "waiting"], 0)
    work.idle()


@jumping
async def test_a_full_queue_refuses_with_the_wait_that_the_drain_rate_tells() -> None:
    work = await experienced(make_pool(FakeEndpoint(limit=1), max_size=3), 10.0)
    for number in range(3):
        await work.add(f"waiting-{number}", 10.0)
    with pytest.raises(QueueFull, match=r"is full \(queue\.max_size: 3\)") as raised:
        await work.pool.admit(make_call())
    assert (raised.value.retry_after, raised.value.cause) == (40, "queue_full")
    assert work.pool.waiting == 3
    await work.done()
    work.idle()


@jumping
async def test_more_slots_mean_a_shorter_wait() -> None:
    pool = make_pool(*(FakeEndpoint(limit=2, address=f"http://e:{i}") for i in range(2)), max_size=4)
    work = await experienced(pool, 10.0)
    for number in range(7):
        await work.add(f"busy-{number}", 10.0)
    with pytest.raises(QueueFull) as raised:
        await work.pool.admit(make_call())
    assert raised.value.retry_after == 13  # five after each other on four slots, ten seconds each
    await work.done()
    work.idle()


OWN = "its own max_queue_time"


@pytest.mark.parametrize(("asked", "seconds", "bound"), [(2.5, 2.5, OWN), (0.0, 0.0, OWN), (9.0, 7.0, "queue.timeout")])
@jumping
async def test_a_call_bounds_its_own_wait(asked: float, seconds: float, bound: str) -> None:
    work = Work(make_pool(FakeEndpoint(limit=1), timeout=7.0))
    await work.add("holder", 100.0)
    with pytest.raises(QueueFull) as raised:
        await work.pool.admit(make_call(max_queue_time=asked))
    assert raised.value.message == f"The call waited {seconds:g} s for backend `main` ({bound})."
    assert (raised.value.cause, work.pool.waiting) == ("queue_timeout", 0)
    assert now() == pytest.approx(1000.0 + seconds)
    await work.stop()
    work.idle()
