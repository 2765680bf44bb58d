"""Retries over a pool with several endpoints: what a dead engine's calls get, and what a storm does not."""

import asyncio
from random import Random

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.support import HEAD, Client, FakeEndpoint, Frames, Step, make_call, make_pool, make_target

from lexora_router.call import Handler, compose
from lexora_router.errors import UpstreamBroken, UpstreamFailure, UpstreamRefused, UpstreamTimeout
from lexora_router.fleet.endpoint_health import HealthRules
from lexora_router.fleet.pool import Pool
from lexora_router.layers.admission import Admission
from lexora_router.layers.balance import Balance, attempt
from lexora_router.layers.retry import Retry, RetrySettings
from lexora_router.policy.backoff import Backoff
from lexora_router.policy.breaker import BreakerRules
from lexora_router.policy.retry_budget import RetryBudget
from lexora_router.policy.slow_start import SlowStart

ANSWER: tuple[Step, ...] = (HEAD, Frames(b"a"))
NO_BREAKER = HealthRules(BreakerRules(consecutive_failures=10**6, min_volume=10**6), SlowStart(window=0.0))


def pipeline(pool: Pool, budget: RetryBudget) -> Handler:
    settings = RetrySettings(3, Backoff(0.05, 2.0, 1.0), respect_retry_after=True, max_retry_after=60.0)
    jitter = Random(1).random

    def retry(inner: Handler) -> Handler:
        return Retry(inner, settings=settings, budgets={"main": budget}, clock=now, wall_clock=now, jitter=jitter)

    layers = (lambda inner: Admission(inner, pools={"main": pool}), retry, lambda inner: Balance(inner, clock=now))
    return compose(*layers, around=attempt)


async def calls(serve: Handler, count: int, per_second: float) -> int:
    """So many calls, evenly spread or all at once; how many were served."""

    async def one(number: int) -> None:
        await asyncio.sleep(number / per_second)
        await serve(make_call(id=str(number), target=make_target()), Client())

    ends = await asyncio.gather(*(one(number) for number in range(count)), return_exceptions=True)
    assert all(end is None or isinstance(end, UpstreamFailure) for end in ends), ends
    return sum(end is None for end in ends)


def endpoints(*scripts: tuple[Step, ...], limit: int | None = None) -> list[FakeEndpoint]:
    return [FakeEndpoint(*script, address=f"http://e:{i}", limit=limit, rules=NO_BREAKER) for i, script in enumerate(scripts)]


def asked(found: list[FakeEndpoint]) -> int:
    return sum(len(endpoint.calls) for endpoint in found)


@pytest.mark.parametrize("limit", [None, 40])
@jumping
async def test_every_call_of_a_dead_engine_is_saved_by_one_that_is_well(limit: int | None) -> None:
    """A minute after they began, which is long after the budget has forgotten them."""
    found = endpoints((60.0, UpstreamBroken("killed")), (60.0, *ANSWER), limit=limit)
    assert await calls(pipeline(make_pool(*found, timeout=300.0), RetryBudget(floor=0.0)), 80, 1e6) == 80
    assert asked(found) <= 160


FAILURES: list[UpstreamFailure] = [
    UpstreamBroken("x"),
    UpstreamRefused(502, "application/json", b"{}"),
    UpstreamRefused(503, "application/json", b"{}"),
    UpstreamTimeout("silent", "first token"),
]


@pytest.mark.parametrize("seconds", [0.01, 20.0], ids=["at once", "late"])
@pytest.mark.parametrize("failure", FAILURES, ids=str)
@pytest.mark.parametrize("count", [2, 5])
@jumping
async def test_where_every_engine_fails_everything_the_budget_holds(
    count: int, failure: UpstreamFailure, seconds: float
) -> None:
    per_second, floor = 200, 3.0
    found = endpoints(*[(seconds, failure)] * count)
    load = per_second * 5
    assert await calls(pipeline(make_pool(*found), RetryBudget(floor=floor)), load, per_second) == 0
    assert load < asked(found) <= load * 1.2 + floor * 5.0


@jumping
async def test_engines_that_are_well_see_no_more_than_the_load() -> None:
    """One of two fails everything, and no breaker stops it: its calls are all saved, at one retry each."""
    found = endpoints((0.01, UpstreamBroken("x")), (0.01, *ANSWER))
    assert await calls(pipeline(make_pool(*found), RetryBudget(floor=0.0)), 2000, 200) == 2000
    assert len(found[1].calls) == 2000


@jumping
async def test_a_mixture_of_failures_is_a_storm_too() -> None:
    found = endpoints((0.01, FAILURES[0]), (0.01, FAILURES[2]), (0.01, FAILURES[1]))
    assert await calls(pipeline(make_pool(*found), RetryBudget()), 2000, 200) == 0
    assert asked(found) <= 2000 * 1.2 + 15
