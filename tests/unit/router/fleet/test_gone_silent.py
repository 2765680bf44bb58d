"""Unary calls at an endpoint that has frozen, and unary calls that are only slow."""

import asyncio
from random import Random

from tests.support.clock import jumping, now
from tests.unit.router.support import HEAD, Client, FakeEndpoint, give, make_call, make_pool, make_target

from lexora_contract.answer import Reply
from lexora_contract.port import Sink
from lexora_router.call import Call, Handler, Timeouts, compose
from lexora_router.fleet.pool import Pool
from lexora_router.layers.admission import Admission
from lexora_router.layers.balance import Balance, attempt
from lexora_router.layers.retry import Retry, RetrySettings
from lexora_router.layers.timeouts import EngineTimeouts
from lexora_router.policy.backoff import Backoff
from lexora_router.policy.ejection import EjectionRules
from lexora_router.policy.retry_budget import RetryBudget

FIRST_TOKEN, MAX_SILENCE = 600.0, 30.0
ANSWER = Reply(HEAD, b"{}")


class Engine(FakeEndpoint):
    """Answers every call after so many seconds, which may change."""

    seconds = 1.0

    async def attempt(self, call: Call, sink: Sink) -> None:
        self.calls.append(call)
        await asyncio.sleep(self.seconds)
        assert call.lease is not None
        call.lease.answered()
        give(call, sink, ANSWER)


def pipeline(pool: Pool) -> Handler:
    settings = RetrySettings(3, Backoff(0.05, 2.0, 1.0), respect_retry_after=True, max_retry_after=60.0)
    return compose(
        lambda inner: Admission(inner, pools={"main": pool}),
        lambda inner: Retry(
            inner, settings=settings, budgets={"main": RetryBudget()}, clock=now, wall_clock=now, jitter=Random(1).random
        ),
        lambda inner: Balance(inner, clock=now),
        lambda inner: EngineTimeouts(inner, clock=now),
        around=attempt,
    )


async def one(serve: Handler) -> tuple[float, int]:
    """How long a call took, and its attempts."""
    began = now()
    call = make_call(target=make_target(timeouts=Timeouts(FIRST_TOKEN, 60.0, 3600.0)), stream=False)
    await serve(call, Client())
    return now() - began, call.receipt.attempts


async def judged(pool: Pool) -> None:
    while True:
        await asyncio.sleep(1.0)
        pool.judge()


async def after_a_minute(
    serve: Handler, pool: Pool, change: "list[tuple[Engine, float]]", count: int
) -> list[tuple[float, int]]:
    """So many calls at once, when the pool is known and its engines have become what `change` says."""
    judge = asyncio.create_task(judged(pool))
    for _ in range(30):
        await asyncio.gather(one(serve), one(serve))
    for engine, seconds in change:
        engine.seconds = seconds
    try:
        return await asyncio.gather(*(one(serve) for _ in range(count)))
    finally:
        judge.cancel()
        await asyncio.gather(judge, return_exceptions=True)


def fleet() -> tuple[list[Engine], Pool]:
    engines = [Engine(address=f"http://e:{number}", healthy=True) for number in range(3)]
    return engines, make_pool(*engines, ejection=EjectionRules(max_silence=MAX_SILENCE))


@jumping
async def test_calls_at_a_frozen_endpoint_go_elsewhere_and_so_do_new_ones() -> None:
    engines, pool = fleet()
    serve = pipeline(pool)
    found = await after_a_minute(serve, pool, [(engines[0], 10_000.0)], 6)
    late = [seconds for seconds, attempts in found if attempts == 2]
    assert len(late) >= 2
    assert all(MAX_SILENCE < seconds < MAX_SILENCE + 5.0 for seconds in late)
    assert all(attempts == 1 and seconds < 2.0 for seconds, attempts in found if attempts != 2)
    before = len(engines[0].calls)
    await asyncio.gather(*(one(serve) for _ in range(6)))
    assert len(engines[0].calls) == before


@jumping
async def test_one_call_that_takes_a_quarter_of_an_hour_is_left_alone() -> None:
    engines, pool = fleet()
    assert await after_a_minute(pipeline(pool), pool, [(each, 500.0) for each in engines], 1) == [(500.0, 1)]


@jumping
async def test_calls_that_have_all_become_slow_are_left_alone() -> None:
    """Six answers of eight minutes where one second was usual."""
    engines, pool = fleet()
    assert await after_a_minute(pipeline(pool), pool, [(each, 500.0) for each in engines], 6) == [(500.0, 1)] * 6


@jumping
async def test_a_false_alarm_costs_a_call_one_attempt_at_most() -> None:
    """Two of three endpoints have become slow, and the third is ejected by nothing: it answers."""
    engines, pool = fleet()
    found = await after_a_minute(pipeline(pool), pool, [(engines[0], 500.0), (engines[1], 500.0)], 12)
    assert max(attempts for _, attempts in found) == 2
    assert all(seconds <= 2 * 500.0 for seconds, _ in found)


@jumping
async def test_an_endpoint_that_answers_anything_is_not_silent() -> None:
    engines, pool = fleet()
    serve = pipeline(pool)

    async def chat() -> None:
        engines[0].seconds = 5.0
        while True:
            await one(serve)

    judge = asyncio.create_task(judged(pool))
    for _ in range(30):
        await asyncio.gather(one(serve), one(serve))
    for engine in engines:
        engine.seconds = 300.0
    slow = asyncio.gather(*(one(serve) for _ in range(6)))
    await asyncio.sleep(0)
    for engine in engines:
        engine.seconds = 5.0
    talk = [asyncio.create_task(chat()) for _ in range(9)]
    assert await slow == [(300.0, 1)] * 6
    for task in (judge, *talk):
        task.cancel()
    await asyncio.gather(judge, *talk, return_exceptions=True)
