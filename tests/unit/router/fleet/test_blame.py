"""A pool under clients whose requests break engines, simulated with a seed: what the other clients get."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.support import FakeEndpoint, make_call, make_pool

from lexora_router.call import Outcome
from lexora_router.errors import (
    NoHealthyEndpoint,
    RequestQuarantined,
    UpstreamFailure,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from lexora_router.fleet.endpoint_health import HealthRules
from lexora_router.fleet.pool import Pool
from lexora_router.policy.breaker import BreakerRules
from lexora_router.policy.slow_start import SlowStart

TIMEOUT = 2.0
RULES = HealthRules(BreakerRules(failure_share=None, window=30.0), SlowStart(window=0.0))
KINDS: dict[str, Callable[[], UpstreamFailure]] = {
    "500": lambda: UpstreamRefused(500, "application/json", b"{}"),
    "reset": lambda: UpstreamUnreachable("reset"),
    "timeout": lambda: UpstreamTimeout("late", "total", TIMEOUT),
}
RETRIED = ("500", "reset")


Name = Callable[[int], tuple[str, bytes]]


@dataclass
class World:
    """Endpoints of which some are `dead`, in the way of a kind; every endpoint fails at what mallory asks in the same way."""

    pool: Pool
    kind: str
    random: Random
    dead: frozenset[str] = frozenset()

    async def call(self, tenant: str, body: bytes, *, poison: bool, ends: Counter[str]) -> None:
        try:
            lease = await self.pool.admit(make_call(user=tenant, body=body, stream=False))
        except (NoHealthyEndpoint, RequestQuarantined) as refusal:
            ends[refusal.reason] += 1
            return
        try:
            for retry in range(4):
                endpoint = await lease.next()
                if not (poison or endpoint.address in self.dead):
                    await asyncio.sleep(self.random.expovariate(1 / 0.3))
                    lease.answered()
                    lease.ended(Outcome.GOOD)
                    ends["good"] += 1
                    return
                await asyncio.sleep(TIMEOUT if self.kind == "timeout" else 0.01)
                lease.ended(Outcome.FAULT, KINDS[self.kind]())
                if self.kind not in RETRIED or not lease.may_go_on() or not lease.has_untried() or retry == 3:
                    break
            ends["failed"] += 1
        finally:
            lease.close()

    async def client(self, rate: float, seconds: float, name: Name, *, poison: bool) -> Counter[str]:
        """Calls at random instants."""
        ends: Counter[str] = Counter()
        calls, end, number = [], now() + seconds, 0
        while now() < end:
            tenant, body = name(number)
            calls.append(asyncio.create_task(self.call(tenant, body, poison=poison, ends=ends)))
            number += 1
            await asyncio.sleep(self.random.expovariate(rate))
        await asyncio.gather(*calls)
        return ends


def world(kind: str, count: int = 3, seed: int = 1, dead: frozenset[str] = frozenset()) -> World:
    endpoints = [FakeEndpoint(address=f"http://e:{number}", healthy=True, rules=RULES) for number in range(count)]
    return World(make_pool(*endpoints, randrange=Random(seed).randrange), kind, Random(seed), dead)


MALLORY: dict[str, Name] = {
    "the same request": lambda _: ("mallory", b"boom"),
    "ever other requests": lambda number: ("mallory", b"boom %d" % number),
    "ever other requests and names": lambda number: (f"mallory-{number}", b"boom %d" % number),
    "as everybody else": lambda number: ("anonymous", b"boom %d" % number),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mallory", MALLORY)
@pytest.mark.parametrize("rate", [1.0, 10.0])
@jumping
async def test_one_client_that_breaks_what_it_asks_takes_no_pool_down(kind: str, mallory: str, rate: float) -> None:
    """Ten of its requests a second for two minutes, from the first moment on; others ask one or ten times a second."""
    pool = world(kind)
    alone = mallory == "as everybody else"

    def victim(number: int) -> tuple[str, bytes]:
        return "anonymous" if alone else f"tenant-{number % 5}", b"hello %d" % number

    bad, good = await asyncio.gather(
        pool.client(10.0, 120.0, MALLORY[mallory], poison=True), pool.client(rate, 120.0, victim, poison=False)
    )

    assert good["good"] >= 0.97 * good.total()
    if mallory == "the same request":
        assert bad[RequestQuarantined.reason] > 0.9 * bad.total()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tenants", [1, 5])
@pytest.mark.parametrize("bodies", [1, 1000])
@jumping
async def test_a_dead_endpoint_is_out_after_as_many_failures_as_ever(kind: str, tenants: int, bodies: int) -> None:
    pool = world(kind)

    def name(number: int) -> tuple[str, bytes]:
        return f"tenant-{number % tenants}", b"hello %d" % (number % bodies)

    await pool.client(5.0, 20.0, name, poison=False)
    dead = pool.pool.endpoints[0]
    pool.dead = frozenset({dead.address})
    asked = 0
    begin = dead.condition.begin

    def counted(instant: float) -> int:
        nonlocal asked
        asked += 1
        return begin(instant)

    dead.condition.begin = counted  # type: ignore[method-assign]
    ends: Counter[str] = Counter()
    began, number = now(), 0
    while dead.condition.available(now()):
        assert now() - began < 60.0
        await pool.call(*name(number), poison=False, ends=ends)
        number += 1

    limit = RULES.breaker.consecutive_failures
    assert asked <= limit if kind in RETRIED or bodies > 1 else asked <= 4 * limit
