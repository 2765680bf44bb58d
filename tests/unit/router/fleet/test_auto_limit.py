import asyncio
from typing import Any

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.engines.engine import make_backend
from tests.unit.router.support import RULES, make_call

from lexora_router.call import Outcome
from lexora_router.config import Config
from lexora_router.fleet.auto_limit import START, UNARY_AFTER_SECONDS, AutoLimit, SharedAutoLimit
from lexora_router.fleet.backend import Backend, build_backends
from lexora_router.fleet.endpoint_health import Condition
from lexora_router.fleet.lease import SlotLease
from lexora_router.leases.slots import EndpointLease
from lexora_router.policy.concurrency import EngineLoad


def feed(auto: AutoLimit, seconds: float, at: float, *, streamed: bool = True, count: int | None = None) -> list[bool]:
    """A round of answers, all alike, at full use of the limit."""
    limit = auto.limit
    return [auto.answered(seconds, limit, at, streamed=streamed) for _ in range(count or max(limit, 8))]


def test_it_stays_within_its_bounds() -> None:
    assert AutoLimit(20, 64, 1.0).limit == 20
    assert AutoLimit(2, 8, 1.0).limit == 8
    assert AutoLimit(2, 64, 1.0).limit == START
    assert AutoLimit(2, 64, 1.0, start=40).limit == 40


def test_good_answers_raise_it_and_it_says_so_once() -> None:
    auto = AutoLimit(2, 64, 1.0)
    assert feed(auto, 0.1, 10.0) == [False] * (START - 1) + [True]
    assert auto.limit == 2 * START


def test_over_replicas_it_grows_with_the_attempts_of_all() -> None:
    lease = EndpointLease("http://e:1", Condition(RULES))
    auto = SharedAutoLimit(lease, 2, 64, 1.0)
    for _ in range(START):
        auto.answered(0.1, START // 4, 10.0, streamed=True)
    assert auto.limit == START  # an idle engine proves nothing
    lease.elsewhere = START * 3 // 4
    for _ in range(START):
        auto.answered(0.1, START // 4, 20.0, streamed=True)
    assert auto.limit > START


def test_refusals_lower_it() -> None:
    auto = AutoLimit(2, 64, 1.0)
    auto.refused(5.0, 6.0)
    assert auto.limit < START


def test_what_the_engine_says_is_kept_and_stands_above_the_answers() -> None:
    auto = AutoLimit(2, 64, 1.0)
    load = EngineLoad(waiting=3.0, kv_cache_usage=0.5, at=10.0)
    auto.scraped(load)
    assert auto.heard(11.0) == load
    assert feed(auto, 0.001, 10.5) == [False] * START
    assert auto.limit < START


def test_numbers_older_than_three_scrapes_are_ignored() -> None:
    auto = AutoLimit(2, 64, 1.0)
    auto.scraped(EngineLoad(waiting=3.0, kv_cache_usage=0.5, at=10.0))
    feed(auto, 0.1, 13.5)
    assert auto.limit == 2 * START
    assert auto.heard(13.0) is not None
    assert auto.heard(13.5) is None


def test_unary_answers_count_where_nothing_is_streamed() -> None:
    auto = AutoLimit(2, 64, 1.0)
    assert any(feed(auto, 5.0, 10.0, streamed=False))


def test_unary_answers_are_not_compared_with_first_tokens() -> None:
    """They take as long as all their tokens: among first tokens they would look like congestion."""
    auto = AutoLimit(2, 64, 1.0)
    feed(auto, 0.1, 10.0)
    grown = auto.limit
    assert not any(feed(auto, 9.0, 19.5, streamed=False, count=100))
    assert auto.limit == grown
    later = 10.0 + UNARY_AFTER_SECONDS
    feed(auto, 0.1, later, streamed=False)
    assert auto.limit > grown


def backend_of(previous: Backend | None = None, **fields: Any) -> Backend:
    main = {"url": "http://e:1", "concurrency": "auto", "min_concurrency": 2, **fields}
    config = Config.model_validate({"routing": {"backends": {"main": main}}})
    return build_backends(config, now, {"main": previous} if previous else None)["main"]


def test_only_a_backend_that_asks_for_it_has_one() -> None:
    assert make_backend("http://e:1").endpoints[0].auto is None
    endpoint = backend_of().endpoints[0]
    assert endpoint.auto is not None
    assert endpoint.limit == START


@jumping
async def test_a_reload_goes_on_where_the_limit_stood() -> None:
    old = backend_of()
    assert old.endpoints[0].auto is not None
    feed(old.endpoints[0].auto, 0.1, now() + 1)
    old.pool.tally.attempts[Outcome.GOOD] = 5
    new = backend_of(old, timeout=7.0)
    assert new is not old
    assert new.endpoints[0].limit == 2 * START
    assert new.pool.tally.attempts[Outcome.GOOD] == 5
    assert backend_of(new, timeout=8.0, max_concurrency=20).endpoints[0].limit == 20
    assert backend_of(new, timeout=8.0, concurrency="fixed").endpoints[0].limit == 64


async def dispatched(backend: Backend, count: int, **changes: Any) -> list[SlotLease]:
    leases = [await backend.pool.admit(make_call(**changes)) for _ in range(count)]
    for lease in leases:
        await lease.next()
    return leases


@jumping
async def test_answers_in_the_pool_raise_the_limit_and_who_waits_goes_on() -> None:
    backend = backend_of()
    leases = await dispatched(backend, START)
    waiting = [asyncio.create_task(backend.pool.admit(make_call())) for _ in range(START + 3)]
    await asyncio.sleep(1)
    assert backend.pool.waiting == START + 3
    for lease in leases:
        lease.answered()
    await asyncio.sleep(0)
    assert backend.endpoints[0].limit == backend.endpoints[0].in_flight == 2 * START
    assert backend.pool.waiting == 3
    for lease in leases:
        lease.ended(Outcome.GOOD)
        lease.close()
    for task in waiting:
        (await task).close()
    assert (backend.endpoints[0].in_flight, backend.pool.waiting) == (0, 0)


@pytest.mark.parametrize(("outcome", "lower"), [(Outcome.BUSY, True), (Outcome.FAULT, False), (Outcome.NEUTRAL, False)])
@jumping
async def test_only_a_busy_engine_lowers_it(outcome: Outcome, lower: bool) -> None:
    backend = backend_of()
    await asyncio.sleep(1)
    [lease] = await dispatched(backend, 1)
    lease.ended(outcome)
    lease.close()
    limit = backend.endpoints[0].limit
    assert limit is not None
    assert (limit < START) is lower
    assert backend.pool.tally.attempts == dict.fromkeys(Outcome, 0) | {outcome: 1}


@jumping
async def test_waits_are_measured_to_the_slot() -> None:
    backend = backend_of(concurrency="fixed", min_concurrency=1, max_concurrency=1)
    first = await backend.pool.admit(make_call())
    second = asyncio.create_task(backend.pool.admit(make_call()))
    refused = asyncio.create_task(backend.pool.admit(make_call()))
    await asyncio.sleep(0.02)
    refused.cancel()
    first.close()
    (await second).close()
    await asyncio.gather(refused, return_exceptions=True)
    waits = backend.pool.tally.waits
    assert (sum(waits.counts), waits.total) == (2, pytest.approx(0.02))
