"""Replicas that share the slots of two engines, simulated with the product's own pools, links, leases and program."""

import asyncio
from random import Random

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.leases.replicas import Clients, House, jain

LIMITS = {"http://e:1": 8, "http://e:2": 8}
SLOTS = sum(LIMITS.values())

EQUAL = [Clients(0, "a", 67), Clients(1, "b", 67), Clients(2, "c", 66)]
FLOOD = [Clients(0, "flood", 150), Clients(1, "b", 20), Clients(2, "c", 20)]
EVERYWHERE = [
    *(Clients(place, "flood", 50) for place in range(3)),
    Clients(3, "b", 30),
    Clients(3, "c", 30),
    Clients(2, "d", 30),
]


@pytest.mark.parametrize("clients", [EQUAL, FLOOD, EVERYWHERE], ids=["equal", "flood", "flood-everywhere"])
@pytest.mark.parametrize(("seconds", "length"), [(0.05, 5.0), (0.5, 40.0), (5.0, 200.0)])
def test_slots_are_all_used_never_exceeded_and_shared_by_tenants(clients: list[Clients], seconds: float, length: float) -> None:
    @jumping
    async def run() -> None:
        house = House()
        await house.open(max(each.replica for each in clients) + 1, LIMITS)
        await house.load(clients, length, seconds)
        assert max(house.engines.most.values()) <= 8
        assert house.utilisation > 0.95
        assert jain(list(house.served.values())) > 0.95, house.served
        await house.close()

    run()


@pytest.mark.parametrize("seconds", [0.1, 1.0])
def test_a_high_priority_waits_hardly_longer_than_at_one_replica(seconds: float) -> None:
    waits: list[float] = []

    @jumping
    async def run(replicas: int) -> None:
        house = House()
        await house.open(replicas, LIMITS)
        high = Clients(0, "high", 2, {"priority": 100})
        low = [Clients(0, "low", 60, {"priority": 0}), Clients(replicas - 1, "low", 60, {"priority": 0})]
        await house.load([high, *low], 400 * seconds, seconds)
        found = sorted(house.waits["high"])
        waits.append(found[len(found) * 99 // 100])
        await house.close()

    run(1)
    run(2)
    assert waits[1] <= 1.5 * waits[0] + 0.005, waits


@jumping
async def test_a_replica_that_dies_gives_its_slots_to_the_others() -> None:
    house = House()
    await house.open(2, LIMITS)
    dead, other = house.replicas
    calls = [asyncio.create_task(dead.call(1000.0)) for _ in range(40)]
    await asyncio.sleep(1.0)
    assert dead.held == SLOTS
    house.engines.running.clear()  # with the process its connections end
    dead.state.gone = True
    died = now()
    waiting = [asyncio.create_task(other.call(1.0)) for _ in range(SLOTS)]
    await asyncio.sleep(2.5)
    assert not any(house.engines.running.values())
    await asyncio.gather(*waiting)
    assert now() - died < 4.5  # 3 s of silence, a tick, and the call
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await house.close()


@jumping
async def test_without_the_store_each_replica_has_its_share_and_calls_go_on() -> None:
    house = House()
    await house.open(3, LIMITS | {"http://e:3": 1})
    for replica in house.replicas:
        replica.state.gone = True
    await asyncio.sleep(1.0)
    assert [replica.link.degraded for replica in house.replicas] == [True] * 3
    assert sum(replica.held for replica in house.replicas) == SLOTS + 1
    await asyncio.sleep(3.0)
    assert sorted(replica.held for replica in house.replicas) == [5, 6, 6]
    await house.load(EQUAL, 10.0, 0.1)
    assert max(house.engines.most.values()) <= 8
    assert all(house.served.values())
    for replica in house.replicas:
        replica.state.gone = False
    await asyncio.sleep(2.0)
    assert [replica.link.degraded for replica in house.replicas] == [False] * 3
    await house.load(EQUAL, 20.0, 0.1)
    assert max(house.engines.most.values()) <= 8
    assert house.utilisation > 0.95
    await house.close()


@jumping
async def test_a_moment_without_the_store_changes_nothing() -> None:
    """A late answer on a busy machine is no reason to use what others hold."""
    house = House()
    await house.open(3, LIMITS)
    calls = [asyncio.create_task(house.replicas[0].call(4.0)) for _ in range(SLOTS)]
    await asyncio.sleep(0.5)
    for replica in house.replicas[1:]:
        replica.state.gone = True
    await asyncio.sleep(0.3)
    more = [asyncio.create_task(replica.call(0.1)) for replica in house.replicas[1:] for _ in range(4)]
    await asyncio.sleep(1.5)
    for replica in house.replicas:
        replica.state.gone = False
    await asyncio.gather(*calls, *more)
    assert sum(house.engines.most.values()) <= SLOTS + 2  # one slot each for replicas that held none
    await house.close()


@jumping
async def test_a_replica_whose_share_is_no_slot_has_one() -> None:
    house = House()
    await house.open(3, {"http://e:1": 1})
    for replica in house.replicas:
        replica.state.gone = True
    await asyncio.sleep(1.0)
    assert [replica.held for replica in house.replicas] == [1, 1, 1]
    for replica in house.replicas:
        replica.state.gone = False
    await asyncio.sleep(3.0)
    assert sum(replica.held for replica in house.replicas) == 1
    await house.close()


@jumping
async def test_an_endpoint_that_is_left_gives_its_slots_back_when_its_calls_have_ended() -> None:
    house = House()
    await house.open(2, LIMITS)
    one, other = house.replicas
    call = [asyncio.create_task(one.call(2.0)) for _ in range(SLOTS)]
    await asyncio.sleep(1.0)
    one.lease.follow(one.endpoints[:1])
    await asyncio.sleep(0.5)
    left = one.endpoints[1]
    assert (left.lease.limit, left.condition.in_flight) == (8, 8)
    await asyncio.gather(*call)
    await asyncio.sleep(3.0)
    assert list(one.lease.leases) == ["http://e:1"]
    waits = await asyncio.gather(*(other.call(1.0) for _ in range(SLOTS)))
    assert max(waits) < 0.5
    await house.close()


@jumping
async def test_calls_go_to_the_endpoint_that_has_least_from_all_replicas() -> None:
    house = House()
    await house.open(2, {"http://e:1": 100, "http://e:2": 100})
    one, other = house.replicas
    for endpoint in other.endpoints[:1]:
        endpoint.condition.in_flight = 40
    await asyncio.sleep(1.5)
    calls = [asyncio.create_task(one.call(1.0)) for _ in range(20)]
    await asyncio.sleep(0.1)
    assert one.endpoints[0].condition.in_flight == 0
    other.endpoints[0].condition.in_flight = 0
    await asyncio.gather(*calls)
    await house.close()


@jumping
async def test_a_store_that_forgets_gets_to_know_what_is_in_use() -> None:
    house = House()
    await house.open(2, LIMITS)
    calls = [asyncio.create_task(replica.call(10.0)) for replica in house.replicas for _ in range(6)]
    await asyncio.sleep(1.0)
    house.forget()
    await asyncio.sleep(1.0)
    more = [asyncio.create_task(replica.call(1.0)) for replica in house.replicas for _ in range(6)]
    await asyncio.gather(*calls, *more)
    assert max(house.engines.most.values()) <= 8
    await house.close()


def test_a_wait_that_leads_nowhere_is_no_storm() -> None:
    """At full load the exchanges are those of the clock, and some for what moves."""

    @jumping
    async def run() -> None:
        house = House(seed=Random(1).randrange(100))
        await house.open(3, LIMITS)
        before = [replica.state.exchanges for replica in house.replicas]
        await house.load(EQUAL, 20.0, 0.05)
        rates = [(replica.state.exchanges - first) / 20.0 for replica, first in zip(house.replicas, before, strict=True)]
        assert max(rates) < 30, rates
        await house.close()

    run()


@jumping
async def test_an_endpoint_that_comes_back_at_once_has_what_the_store_grants_and_no_more() -> None:
    house = House()
    await house.open(2, LIMITS)
    one = house.replicas[0]
    for number in range(30):
        await asyncio.gather(*(replica.call(0.03) for replica in house.replicas for _ in range(20)))
        one.lease.follow(one.endpoints[:1])
        await asyncio.sleep(0.005 * (number % 12))
        one.lease.follow(one.endpoints)
        await asyncio.gather(*(replica.call(0.03) for replica in house.replicas for _ in range(20)))
    assert max(house.engines.most.values()) <= 8
    await house.close()


@jumping
async def test_a_pool_that_is_left_is_left_at_the_store() -> None:
    house = House()
    await house.open(2, LIMITS)
    one, other = house.replicas
    one.leases.follow([])
    await asyncio.sleep(3.0)
    assert other.held == SLOTS
    one.lease.follow(one.endpoints)
    one.leases.follow([one.lease])
    await asyncio.sleep(3.0)
    assert one.held + other.held == SLOTS
    assert one.held > 4
    await house.close()
