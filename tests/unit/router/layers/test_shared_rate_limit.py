"""The layer over limits that replicas share: real links to one store in memory, which may be slow, silent or gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.support import HANG, HEAD, Client, Frames, Scripted, Step, make_call

from lexora_contract.answer import BucketState
from lexora_router.call import Call
from lexora_router.errors import RateLimited
from lexora_router.layers.rate_limit import SharedMeter, SharedRateLimit
from lexora_router.leases.credit import Credit
from lexora_router.policy.rate_limiter import RateLimiter
from lexora_router.policy.rate_limits import LimitRules, Part, RateLimits
from lexora_router.state.link import StateLink
from lexora_router.state.memory import InMemoryState, Store
from lexora_router.state.port import Answer, Batch, StateUnavailable
from lexora_router.state.programs.credit import CREDIT

PROGRAMS = {"credit": CREDIT}
TIMEOUT = 0.05
STREAMING: list[Step] = [HEAD, Frames(b"a")]
ESTIMATE, INPUT = 100, 10


class Slow(InMemoryState):
    """A store at the end of a network. `fault`: it refuses, or loses its answer."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, now)
        self.fault = ""
        self.exchanges = 0

    async def open(self) -> None:
        if self.fault == "refuse":
            raise StateUnavailable("refused")

    async def exchange(self, batch: Batch) -> Answer:
        self.exchanges += 1
        await asyncio.sleep(0.0005)
        if self.fault == "refuse":
            raise StateUnavailable("refused")
        answer = await super().exchange(batch)
        if self.fault == "lose":
            await asyncio.sleep(10)
        await asyncio.sleep(0.0005)
        return answer


class Replica:
    """The layer, its link and its way to the store."""

    def __init__(self, store: Store, limits: RateLimits, parts: list[Part], steps: list[Step]) -> None:
        self.state = Slow(store)
        self.link = StateLink(self.state, PROGRAMS, timeout=TIMEOUT, clock=now, spread=lambda: 0.5)
        self.credit = Credit(self.link, now)
        self.link.join(self.credit)
        limiter = RateLimiter(LimitRules(limits), now(), make=self.credit.buckets)
        self.meter = SharedMeter(
            limiter, lambda _: "", lambda _: INPUT, lambda _: ESTIMATE, now, lambda _: parts, lender=self.credit
        )
        self.inner = Scripted(*steps)
        self.layer = SharedRateLimit(self.inner, meter=self.meter)

    async def ask(self, **changes: Any) -> Call:
        call = make_call(**changes)
        await self.layer(call, Client())
        return call

    async def asks(self, number: int) -> int:
        """So many calls at once; how many were let in."""
        found = await asyncio.gather(*(self.ask() for _ in range(number)), return_exceptions=True)
        for each in found:
            assert isinstance(each, Call | RateLimited), each
        return sum(isinstance(each, Call) for each in found)


@asynccontextmanager
async def replicas(*steps: Step, parts: list[Part] | None = None, **limits: Any) -> AsyncIterator[tuple[Replica, Replica]]:
    store = Store(PROGRAMS)
    rules = RateLimits(**({"rate": 1.0, "burst": 50} | limits))
    one, other = (Replica(store, rules, parts or [], list(steps)) for _ in range(2))
    try:
        for each in (one, other):
            await each.link.start()
        await asyncio.sleep(0.5)
        yield one, other
    finally:
        for each in (one, other):
            each.state.fault = ""
            await each.link.leave()


@jumping
async def test_calls_that_come_together_share_one_exchange_and_find_what_is_left_anywhere() -> None:
    async with replicas(*STREAMING, rate=0.001) as (one, other):
        before = one.state.exchanges
        assert await one.asks(30) == 30
        assert one.state.exchanges - before <= 3
        assert await other.asks(30) >= 19
        with pytest.raises(RateLimited, match=r"`anonymous` is used up \(requests: 50 at once\)") as raised:
            await one.ask()
        assert raised.value.retry_after > 0.1
        assert one.state.exchanges + other.state.exchanges < 30


@jumping
async def test_a_call_waits_for_one_exchange_and_the_next_finds_a_lease() -> None:
    async with replicas(rate=1000.0, burst=1000) as (one, _):
        began = now()
        first = await one.ask()
        assert 0 < now() - began < 0.01
        assert first.receipt.rate_limit is not None
        assert first.receipt.rate_limit.requests == BucketState(1000, 999, pytest.approx(0.001, abs=1e-3))
        for _ in range(100):
            await one.ask()
            await asyncio.sleep(0.005)
        began = now()
        await one.ask()
        assert now() == began


@jumping
async def test_a_key_and_its_tenant_are_charged_both_or_neither() -> None:
    key = Part("key", "acme", "k1", RateLimits(0.001, 5))
    async with replicas(parts=[key], rate=0.001, burst=8) as (one, other):
        assert await one.asks(4) + await other.asks(4) == 5
        with pytest.raises(RateLimited, match="key `k1`"):
            await one.ask()
        assert one.meter.limiter.peek("anonymous", 0, now()).requests.remaining == 2


@pytest.mark.parametrize("fault", ["refuse", "lose"])
@jumping
async def test_a_store_that_is_gone_or_silent_costs_no_call_more_than_its_timeout_and_none_fails(fault: str) -> None:
    async with replicas(rate=1.0, burst=60) as (one, other):
        await one.ask()
        await asyncio.sleep(2)
        one.state.fault = other.state.fault = fault
        began = now()
        assert await one.asks(40) == 30, "a half of what there is"
        assert now() - began < 2 * TIMEOUT
        began = now()
        assert await other.asks(40) == 30
        assert await other.asks(1) == 0
        assert now() - began < 2 * TIMEOUT
        one.state.fault = other.state.fault = ""
        await asyncio.sleep(3)
        assert await one.asks(10) + await other.asks(10) <= 4, "what was spent alone is known again"
        await asyncio.sleep(60)
        assert 48 <= await one.asks(60) <= 60


@jumping
async def test_answers_that_are_lost_again_and_again_grant_nothing_twice() -> None:
    async with replicas(rate=0.001, burst=100) as (one, other):
        allowed = 0
        for _ in range(20):
            one.state.fault = "lose"
            allowed += await one.asks(7)
            await asyncio.sleep(0.2)
            one.state.fault = ""
            await asyncio.sleep(1.5)
            allowed += await other.asks(3)
        allowed += await one.asks(100) + await other.asks(100)
        assert 97 <= allowed <= 102, "what was heard before an answer was lost may be too much by what the other took since"


@jumping
async def test_a_client_that_leaves_while_its_call_waits_for_the_store_has_spent_nothing() -> None:
    async with replicas(rate=0.001, burst=5, max_concurrent=5) as (one, other):
        task = asyncio.create_task(one.ask())
        await asyncio.sleep(0.0002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.5)
        assert await other.asks(9) == 5


@jumping
async def test_places_come_back_when_a_call_ends_or_its_client_leaves() -> None:
    async with replicas(HANG, rate=1000.0, burst=1000, max_concurrent=4) as (one, other):
        held = [asyncio.create_task(each.ask()) for each in (one, other, one, other)]
        await asyncio.sleep(0.1)
        for each in (one, other):
            with pytest.raises(RateLimited, match="calls under way: 4 at once"):
                await each.ask()
        held[0].cancel()
        await asyncio.gather(held[0], return_exceptions=True)
        await asyncio.sleep(0.2)
        held.append(asyncio.create_task(other.ask()))
        await asyncio.sleep(0.1)
        assert not held[-1].done()
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)


@jumping
async def test_malformed_requests_are_counted_without_waiting() -> None:
    async with replicas(rate=0.001, burst=5) as (one, other):
        for _ in range(3):
            one.meter.count(make_call())
        await asyncio.sleep(0.5)
        assert await other.asks(5) == 2
        one.meter.count(make_call())  # what it has heard is old
        await asyncio.sleep(0.3)
        with pytest.raises(RateLimited):
            one.meter.count(make_call())


@jumping
async def test_what_is_foreseen_and_forecast_is_of_all_replicas() -> None:
    async with replicas(rate=0.001, burst=5) as (one, other):
        one.meter.foresee(make_call())
        assert await other.asks(9) == 5
        one.meter.foresee(make_call())  # it has not heard yet
        with pytest.raises(RateLimited):
            await one.ask()
        with pytest.raises(RateLimited):
            one.meter.foresee(make_call())
        assert not one.meter.forecast(make_call(), 0).allowed
        assert other.meter.forecast(make_call(), 0).retry_after > 100
