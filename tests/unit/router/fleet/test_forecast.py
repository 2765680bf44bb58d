"""What a pool says that it would do with a call, against what it then does."""

import asyncio
import random
from typing import Any

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.fleet.work import Work, open_breaker
from tests.unit.router.snapshot import snapshot
from tests.unit.router.support import FakeEndpoint, make_call, make_pool

from lexora_contract.priority import HIGH, LOW, NORMAL
from lexora_router.errors import NoHealthyEndpoint, QueueFull, RouterError
from lexora_router.fleet import waiting
from lexora_router.fleet.endpoint_health import Condition
from lexora_router.fleet.forecast import Forecast
from lexora_router.fleet.pool import Pool


def looked_at(pool: Pool, **call: Any) -> Forecast:
    """The forecast of a call, which must change nothing."""
    before = snapshot(pool)
    forecast = pool.forecast(make_call(**call))
    assert snapshot(pool) == before
    return forecast


async def refused(pool: Pool, **call: Any) -> RouterError:
    with pytest.raises((QueueFull, NoHealthyEndpoint)) as raised:
        await pool.admit(make_call(**call))
    return raised.value


def same(one: RouterError | None, other: RouterError) -> None:
    assert one is not None
    assert (type(one), vars(one)) == (type(other), vars(other))


@jumping
async def test_a_free_slot_is_to_be_had_at_once() -> None:
    endpoints = [FakeEndpoint(limit=1, address=f"http://e:{i}") for i in range(2)]
    work = Work(make_pool(*endpoints))
    assert looked_at(work.pool) == Forecast(work.pool.endpoints)
    await work.add("a")
    (free,) = looked_at(work.pool).free
    assert free.address != work.where["a"]
    await work.done()


@jumping
async def test_the_place_in_the_queue_is_the_one_that_the_call_then_has() -> None:
    pool, chance = make_pool(FakeEndpoint(limit=1)), random.Random(5)
    work = Work(pool)
    await work.add("first", 5.0)
    for number in range(30):
        await work.add(f"other{number}", 0.0, priority=chance.choice([LOW, NORMAL, HIGH]), user=chance.choice("xyz"))
    asked = {"user": "x", "priority": NORMAL}
    place = looked_at(pool, **asked).position
    await work.add("mine", 0.0, **asked)
    await work.done()
    assert 1 < place < 31
    assert work.served.index("mine") == place  # the one that holds the slot was served before the queue
    work.idle()


@jumping
async def test_calls_between_two_attempts_go_first() -> None:
    work = Work(make_pool(FakeEndpoint(limit=1)))
    lease = await work.pool.admit(make_call())
    await lease.next()
    lease.pause()
    await work.add("holder", 5.0)
    again = asyncio.create_task(lease.next())
    await asyncio.sleep(0)
    assert looked_at(work.pool, priority=HIGH).position == 2
    await again
    lease.close()
    await work.done()


@jumping
async def test_the_wait_follows_from_how_long_calls_hold_their_slots() -> None:
    work = Work(make_pool(FakeEndpoint(limit=2)))
    await work.add("known", 4.0)
    await work.done()
    for number in range(4):
        await work.add(str(number), 4.0)
    forecast = looked_at(work.pool)
    assert (forecast.position, forecast.wait) == (3, 6.0)
    await work.done()


@jumping
async def test_of_an_empty_past_no_wait_is_told() -> None:
    work = Work(make_pool(FakeEndpoint(limit=1)))
    await work.add("holder", 4.0)
    assert (looked_at(work.pool).position, looked_at(work.pool).wait) == (1, None)
    await work.done()


@jumping
async def test_a_full_queue_a_short_deadline_and_open_breakers_are_the_refusals_that_the_call_gets() -> None:
    endpoint = FakeEndpoint(limit=1)
    work = Work(make_pool(endpoint, max_size=1))
    await work.add("known", 4.0)
    await work.done()
    await work.add("holder", 4.0)
    await work.add("waiting", 4.0)
    for call in ({}, {"deadline": now() + 1.0}):
        found = looked_at(work.pool, **call).refusal
        same(found, await refused(work.pool, **call))
    await work.stop()
    open_breaker(endpoint)
    same(looked_at(work.pool).refusal, await refused(work.pool))


@jumping
async def test_an_endpoint_that_is_down_is_a_guess_when_no_other_is_well() -> None:
    down, well = FakeEndpoint(address="http://d:1", healthy=False), FakeEndpoint(address="http://w:1")
    pool = make_pool(down, well)
    assert [endpoint.address for endpoint in looked_at(pool).free] == ["http://w:1"]
    well.condition.healthy = False
    assert len(looked_at(pool).free) == 2


@jumping
async def test_places_in_a_long_queue_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MAX_TRIED_OUT", 2)
    work = Work(make_pool(FakeEndpoint(limit=1)))
    for number in range(5):
        await work.add(str(number), 1.0)
    assert looked_at(work.pool).position == 5
    await work.done()


# -- what stands in the way of an endpoint


def agrees(condition: Condition, at: float) -> None:
    assert (condition.obstacle(at) == "") == condition.available(at)


@jumping
async def test_the_obstacle_says_why_an_endpoint_is_not_available() -> None:
    endpoint = FakeEndpoint()
    condition = endpoint.condition
    assert condition.obstacle(now()) == ""
    condition.found(healthy=False, reason="Connection refused", now=now())
    assert condition.obstacle(now()) == "down: Connection refused"
    agrees(condition, now())
    condition.found(healthy=True, reason="", now=now())
    condition.eject(now() + 4.0, "ejected: no_tokens")
    assert condition.obstacle(now()) == "ejected: no_tokens, for 4.0 s more"
    agrees(condition, now())
    assert condition.obstacle(now() + 4.0) == ""
    open_breaker(endpoint)
    assert condition.obstacle(now()) == "breaker open, a trial in 5.0 s"
    agrees(condition, now())
    await asyncio.sleep(5.0)
    assert condition.obstacle(now()) == ""
    condition.begin(now())
    assert condition.obstacle(now()) == "breaker half-open, its trial is under way"
    agrees(condition, now())
