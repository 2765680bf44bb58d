import asyncio
from math import inf

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.fleet.work import Work
from tests.unit.router.support import POOL_RULES, FakeEndpoint, make_call, make_pool, standing_of

from lexora_contract.priority import HIGH
from lexora_router.call import Outcome
from lexora_router.errors import QueueFull
from lexora_router.fleet.lease import REST_SECONDS, SlotLease
from lexora_router.fleet.pool import Pool
from lexora_router.fleet.terms import Terms
from lexora_router.fleet.waiting import LOOK_SECONDS
from lexora_router.policy.ejection import EjectionRules


async def failed_at_a() -> tuple[Pool, SlotLease]:
    """Two endpoints of one slot each, and a call that has an attempt at the first one."""
    a, b = FakeEndpoint(limit=1, address="http://a:1"), FakeEndpoint(limit=1, address="http://b:1")
    pool = make_pool(a, b)
    b.condition.healthy = False
    lease = await pool.admit(make_call())
    assert (await lease.next()).address == a.address
    b.condition.healthy = True
    return pool, lease


@jumping
async def test_pause_gives_the_slot_to_others_and_the_call_comes_back_first() -> None:
    work = Work(make_pool(FakeEndpoint(limit=1)))
    lease = await work.pool.admit(make_call())
    await lease.next()
    for name in ("a", "b", "c"):
        await work.add(name, 5.0, priority=HIGH)
    lease.pause()
    await asyncio.sleep(1)
    assert work.served == ["a"]
    await lease.next()
    assert now() == pytest.approx(1005.0)
    assert work.served == ["a"]
    lease.close()
    await work.done()
    assert work.served == ["a", "b", "c"]
    work.idle()


@jumping
async def test_the_next_attempt_goes_elsewhere() -> None:
    endpoints = [FakeEndpoint(address=f"http://e:{i}") for i in range(3)]
    pool = make_pool(*endpoints)
    for _ in range(20):
        lease = await pool.admit(make_call())
        tried = set()
        for left in (2, 1, 0):
            tried.add((await lease.next()).address)
            assert lease.has_untried() == (left > 0)
            lease.ended(Outcome.NEUTRAL)
        assert len(tried) == 3
        await lease.next()  # all were tried: any will do
        lease.close()
    Work(pool).idle()


@jumping
async def test_the_next_attempt_waits_for_an_endpoint_that_has_not_failed_it_while_others_take_its_old_slot() -> None:
    pool, lease = await failed_at_a()
    work = Work(pool)
    await work.add("at-b", 10.0)
    await work.add("waiting", 1.0)
    lease.ended(Outcome.FAULT)
    lease.rest(30.0)
    assert (await lease.next()).address == "http://b:1"
    assert now() == pytest.approx(1010.0)
    assert (work.where["at-b"], work.where["waiting"], work.at["waiting"]) == ("http://b:1", "http://a:1", 1000.0)
    lease.close()
    await work.done()
    work.idle()


@pytest.mark.parametrize(
    ("rest", "at", "where"),
    [(0.0, 0.0, "a"), (3.0, 3.0, "a"), (None, REST_SECONDS, "a"), (20.0, 10.0, "b"), (inf, 10.0, "b")],
)
@jumping
async def test_when_the_rest_is_over_a_tried_endpoint_with_a_slot_will_do(rest: float | None, at: float, where: str) -> None:
    pool, lease = await failed_at_a()
    work = Work(pool)
    await work.add("at-b", 10.0)
    lease.ended(Outcome.FAULT)
    if rest is not None:
        lease.rest(rest)
    assert (await lease.next()).address == f"http://{where}:1"
    assert at - 0.001 <= now() - 1000.0 <= at + 2 * LOOK_SECONDS
    lease.close()
    await work.done()
    work.idle()


@jumping
async def test_a_tried_endpoint_that_is_down_is_not_asked_after_the_rest_either() -> None:
    pool, lease = await failed_at_a()
    work = Work(pool)
    await work.add("at-b", 10.0)
    lease.ended(Outcome.FAULT)
    pool.endpoints[0].condition.found(healthy=False, reason="gone", now=now())
    assert (await lease.next()).address == "http://b:1"
    assert now() == pytest.approx(1010.0)
    lease.close()
    await work.done()


@jumping
async def test_of_those_that_have_not_failed_it_the_next_attempt_goes_to_one_that_answers_others() -> None:
    endpoints = [FakeEndpoint(address=f"http://e:{i}", limit=10) for i in range(4)]
    for bad, outcome in zip(endpoints, (Outcome.FAULT, Outcome.BUSY), strict=False):
        bad.condition.ended(bad.condition.begin(now()), outcome, now())
    pool = make_pool(*endpoints)
    for _ in range(20):
        lease = await pool.admit(make_call())
        lease.tried = {"http://e:3"}
        lease.pause()
        assert lease.has_sound()
        assert (await lease.next()).address == "http://e:2"
        assert (lease.has_untried(), lease.has_sound()) == (True, False)
        assert (await lease.next()).address in ("http://e:0", "http://e:1")
        lease.close()


@jumping
async def test_what_was_tried_is_known_by_its_address_after_a_reload() -> None:
    a, b = (FakeEndpoint(address=f"http://{name}:1") for name in "ab")
    pool = make_pool(a, b)
    lease = await pool.admit(make_call())
    first = (await lease.next()).address
    again = [FakeEndpoint(address=address) for address in ("http://a:1", "http://b:1")]
    for new, old in zip(again, (a, b), strict=True):
        new.condition = old.condition
    pool.follow(again, Terms(pool.limits, standing_of, POOL_RULES, EjectionRules()))
    assert lease.has_untried()
    assert {first, (await lease.next()).address} == {"http://a:1", "http://b:1"}
    assert not lease.has_untried()
    lease.close()
    Work(pool).idle()


@jumping
async def test_an_endpoint_that_failed_is_tried_again_when_the_others_are_gone() -> None:
    a, b = FakeEndpoint(limit=1, address="http://a:1"), FakeEndpoint(limit=1, address="http://b:1")
    pool = make_pool(a, b)
    b.condition.healthy = False
    lease = await pool.admit(make_call())
    assert (await lease.next()).address == a.address
    assert not lease.has_untried()
    assert (await lease.next()).address == a.address
    lease.close()


@jumping
async def test_a_returning_call_waits_no_longer_than_any_other() -> None:
    work = Work(make_pool(FakeEndpoint(limit=1), timeout=7.0))
    lease = await work.pool.admit(make_call())
    await lease.next()
    await work.add("holder", 100.0)
    lease.pause()
    await asyncio.sleep(0)
    start = now()
    with pytest.raises(QueueFull, match=r"queue\.timeout"):
        await lease.next()
    assert now() == pytest.approx(start + 7.0)
    lease.close()
    await work.stop()
    work.idle()


@pytest.mark.parametrize("cancel_first", [True, False])
@jumping
async def test_a_returning_call_that_leaves_loses_no_slot(cancel_first: bool) -> None:
    work = Work(make_pool(FakeEndpoint(limit=1)))
    lease = await work.pool.admit(make_call())
    await lease.next()
    lease.pause()
    other = await work.pool.admit(make_call())
    returning = asyncio.create_task(lease.next())
    await asyncio.sleep(0)
    assert work.pool.waiting == 1
    if cancel_first:
        returning.cancel()
        other.close()
    else:
        other.close()
        returning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await returning
    lease.close()
    work.idle()


@jumping
async def test_after_an_answer_those_that_failed_before_may_be_tried_again() -> None:
    a, b = FakeEndpoint(address="http://a:1"), FakeEndpoint(address="http://b:1")
    lease = await make_pool(a, b).admit(make_call())
    first = (await lease.next()).address
    lease.ended(Outcome.FAULT)
    second = (await lease.next()).address
    assert not lease.has_untried()
    lease.answered()
    assert lease.has_untried()
    lease.ended(Outcome.FAULT)
    assert [first, second] == [(await lease.next()).address, second]
    lease.close()


@jumping
async def test_where_no_endpoint_is_available_an_untried_one_is_still_worth_an_attempt() -> None:
    a, b = FakeEndpoint(address="http://a:1"), FakeEndpoint(address="http://b:1")
    lease = await make_pool(a, b).admit(make_call())
    await lease.next()
    a.condition.healthy = b.condition.healthy = False
    assert lease.has_untried()
    lease.ended(Outcome.FAULT)
    await lease.next()
    assert not lease.has_untried()
    lease.close()


@jumping
async def test_an_endpoint_that_asked_for_patience_gets_it_though_the_other_has_gone_meanwhile() -> None:
    pool, lease = await failed_at_a()
    work = Work(pool)
    await work.add("at-b", 40.0)
    lease.ended(Outcome.BUSY)
    lease.rest(20.0)
    waiting = asyncio.create_task(lease.next())
    await asyncio.sleep(1.0)
    pool.endpoints[1].condition.found(healthy=False, reason="gone", now=now())
    pool.dispatch()
    assert (await waiting).address == "http://a:1"
    assert now() - 1000.0 >= 20.0
    lease.close()
    await work.done()
