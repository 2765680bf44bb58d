import asyncio
import gc
from dataclasses import replace

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.fleet.work import Work, open_breaker
from tests.unit.router.support import RULES, FakeEndpoint, make_call, make_pool

from lexora_router.call import Outcome
from lexora_router.errors import NoHealthyEndpoint
from lexora_router.fleet.waiting import LOOK_SECONDS
from lexora_router.policy.breaker import BreakerRules
from lexora_router.policy.ejection import EjectionRules

PATIENT = replace(RULES, breaker=BreakerRules(consecutive_failures=10_000, min_volume=10_000))


@jumping
async def test_endpoints_that_are_not_available_are_left_out() -> None:
    down, opened, ejected, up = (FakeEndpoint(address=f"http://e:{i}") for i in range(4))
    down.condition.healthy = False
    open_breaker(opened)
    ejected.condition.eject(now() + 100, "ejected")
    pool = make_pool(down, opened, ejected, up)
    leases = [await pool.admit(make_call()) for _ in range(20)]
    assert [endpoint.in_flight for endpoint in pool.endpoints] == [0, 0, 0, 20]
    for lease in leases:
        lease.close()


@jumping
async def test_when_all_look_down_all_are_tried_but_those_with_an_open_breaker() -> None:
    endpoints = [FakeEndpoint(address=f"http://e:{i}", healthy=False) for i in range(3)]
    open_breaker(endpoints[2])
    pool = make_pool(*endpoints)
    leases = [await pool.admit(make_call()) for _ in range(20)]
    assert endpoints[0].in_flight == endpoints[1].in_flight == 10
    assert endpoints[2].in_flight == 0
    for lease in leases:
        lease.close()


@jumping
async def test_slots_of_endpoints_that_only_look_down_count_for_the_wait() -> None:
    """An engine under load may be too slow for its probe, and serves all the same."""
    work = Work(make_pool(FakeEndpoint(limit=10, healthy=False)))
    for number in range(30):
        await work.add(str(number), 10.0)
    await asyncio.sleep(10)
    await work.add("in time", deadline=now() + 25.0)
    await work.done()
    assert "in time" in work.served


@jumping
async def test_one_that_is_full_and_well_is_waited_for_although_one_that_looks_down_is_free() -> None:
    well, down = FakeEndpoint(limit=1, address="http://w:1"), FakeEndpoint(limit=1, address="http://d:1", healthy=False)
    work = Work(make_pool(well, down))
    await work.add("first", 5.0)
    await work.add("second", 5.0)
    await work.done()
    assert set(work.where.values()) == {"http://w:1"}


@jumping
async def test_open_breakers_refuse_at_once_and_say_why() -> None:
    endpoints = [FakeEndpoint(address=f"http://e:{i}") for i in range(2)]
    endpoints[1].condition.found(healthy=False, reason="the probe failed", now=now())
    open_breaker(*endpoints)
    pool = make_pool(*endpoints)
    with pytest.raises(NoHealthyEndpoint, match=r"`main` has no endpoint that takes calls now \(the probe failed\)") as raised:
        await pool.admit(make_call())
    assert raised.value.retry_after == pytest.approx(5.0)
    await asyncio.sleep(5.0)
    (await pool.admit(make_call())).close()


@jumping
async def test_those_that_wait_are_told_when_the_last_breaker_opens() -> None:
    endpoint = FakeEndpoint(limit=2)
    work = Work(make_pool(endpoint))
    returning = await work.pool.admit(make_call())
    await returning.next()
    returning.pause()
    lease = await work.pool.admit(make_call())
    await lease.next()
    other = await work.pool.admit(make_call())
    waiting = [await work.add(str(number)) for number in range(3)]
    waiting.append(asyncio.create_task(returning.next()))  # type: ignore[arg-type]  # its result is not looked at
    await asyncio.sleep(0)
    assert work.pool.waiting == 4
    open_breaker(endpoint)
    lease.ended(Outcome.FAULT)
    lease.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [NoHealthyEndpoint] * 4
    assert now() == pytest.approx(1000.0)
    other.close()
    returning.close()
    work.idle()


@jumping
async def test_a_call_evicted_as_it_leaves_leaves_nothing() -> None:
    endpoint = FakeEndpoint(limit=1)
    work = Work(make_pool(endpoint))
    lease = await work.pool.admit(make_call())
    leaver = await work.add("leaver")
    open_breaker(endpoint)
    lease.close()
    leaver.cancel()
    await work.done()
    gc.collect()  # an exception that nobody fetched would be reported here
    work.idle()


@jumping
async def test_an_endpoint_that_a_probe_brings_back_takes_those_that_wait() -> None:
    a, b = FakeEndpoint(limit=1, address="http://a:1"), FakeEndpoint(limit=1, address="http://b:1", healthy=False)
    work = Work(make_pool(a, b))
    await work.add("holder", 100.0)
    await work.add("waiter")
    b.condition.found(healthy=True, reason="", now=now())
    work.pool.dispatch()
    await asyncio.sleep(0)
    assert (work.where["waiter"], work.at["waiter"]) == ("http://b:1", 1000.0)
    await work.stop()
    work.idle()


@jumping
async def test_a_slot_that_nobody_announces_is_found_soon() -> None:
    a, b = FakeEndpoint(limit=1, address="http://a:1"), FakeEndpoint(limit=1, address="http://b:1")
    open_breaker(b)
    work = Work(make_pool(a, b))
    await work.add("holder", 100.0)
    await work.add("waiter")
    await asyncio.sleep(10)
    assert work.where["waiter"] == "http://b:1"
    assert 1004.9 <= work.at["waiter"] <= 1005.1 + LOOK_SECONDS
    await work.stop()
    work.idle()


@jumping
async def test_who_comes_as_a_slot_appears_does_not_pass_those_that_wait() -> None:
    a, b = FakeEndpoint(limit=1, address="http://a:1"), FakeEndpoint(limit=1, address="http://b:1")
    open_breaker(b)
    work = Work(make_pool(a, b))
    await work.add("holder", 100.0)
    await asyncio.sleep(0.02)
    await work.add("waiter")
    await asyncio.sleep(4.99)
    assert b.condition.available(now())
    assert work.served == ["holder"]
    await work.add("newcomer")
    await asyncio.sleep(LOOK_SECONDS)
    assert work.served == ["holder", "waiter"]
    await work.stop()
    work.idle()


@jumping
async def test_half_open_one_call_is_the_trial_whoever_waits() -> None:
    a, b = FakeEndpoint(limit=1, address="http://a:1"), FakeEndpoint(limit=10, address="http://b:1")
    open_breaker(b)
    pool = make_pool(a, b)
    work = Work(pool)
    await work.add("holder", 1000.0)
    leases = [asyncio.create_task(pool.admit(make_call())) for _ in range(5)]
    await asyncio.sleep(6)
    assert b.in_flight == 1
    trial = next(task.result() for task in leases if task.done())
    await trial.next()
    trial.answered()
    await asyncio.sleep(2 * LOOK_SECONDS)
    assert b.in_flight == 5  # the trial has passed with its first token; it still runs
    for task in leases:
        (await task).close()
    await work.stop()
    work.idle()


@pytest.mark.parametrize("cancelled", ["before its attempt", "in its attempt"])
@jumping
async def test_a_trial_that_leaves_makes_way_for_the_next(cancelled: str) -> None:
    endpoint = FakeEndpoint()
    open_breaker(endpoint)
    pool = make_pool(endpoint)
    await asyncio.sleep(5)
    trial = await pool.admit(make_call())
    with pytest.raises(NoHealthyEndpoint):
        await pool.admit(make_call())
    if cancelled == "in its attempt":
        await trial.next()
        trial.ended(Outcome.NEUTRAL)
    trial.close()
    (await pool.admit(make_call())).close()
    Work(pool).idle()


@jumping
async def test_ejection_never_empties_a_pool() -> None:
    endpoints = [FakeEndpoint(address=f"http://e:{i}", rules=PATIENT) for i in range(4)]
    pool = make_pool(*endpoints, ejection=EjectionRules(min_volume=10, max_ejection_percent=100))
    for endpoint in endpoints:
        for _ in range(10):
            endpoint.condition.ended(endpoint.condition.begin(now()), Outcome.FAULT, now())
    pool.judge()
    assert sum(endpoint.condition.available(now()) for endpoint in endpoints) == 1
    alone = FakeEndpoint(rules=PATIENT)
    for _ in range(10):
        alone.condition.ended(alone.condition.begin(now()), Outcome.FAULT, now())
    make_pool(alone, ejection=EjectionRules(min_volume=10, max_ejection_percent=100)).judge()
    assert alone.condition.available(now())
