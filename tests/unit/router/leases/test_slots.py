"""Leases of slots."""

from typing import Any

import pytest
from hypothesis import given, settings
from tests.unit.router.leases.members import LIMITS, STEPS, Member, SlotsInMemory, made_up, play


@pytest.mark.parametrize("seed", range(20))
def test_no_more_is_held_than_the_limits_in_a_long_run(seed: int) -> None:
    play(SlotsInMemory(), made_up(seed, 600))


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_no_more_is_held_than_the_limits_whatever_is_lost_and_all_of_it_serves(steps: list[Any]) -> None:
    store = SlotsInMemory()
    members = play(store, steps)
    for member in members:
        member.endpoints[0].lease.condition.open = True
    store.advance(30)  # the dead are given up
    for _ in range(4):
        for member in members:
            member.exchange()
        store.advance(1)
    for _ in range(4 * sum(LIMITS.values())):  # whoever waits gets all slots in the end
        members[0].arrive("x", 50)
    for _ in range(100):
        for member in members[1:]:
            member.finish(0)
            member.calls.queue.pop(store.now)
        for member in members:
            member.exchange()
    assert sum(each.lease.condition.in_flight for each in members[0].endpoints) == sum(LIMITS.values())


def test_a_pool_without_endpoints_for_a_while_has_slots_again_when_it_has_some() -> None:
    """As one is at the start whose engines are discovered, and between two sets of them."""
    store = SlotsInMemory()
    member = Member(store, LIMITS)
    member.pool.follow(())
    for _ in range(5):
        member.exchange()
        store.advance(8)
    assert not member.pool.leases
    member.pool.follow(member.endpoints)
    member.arrive("x", 50)
    for _ in range(3):
        member.exchange()
        store.advance(1)
    assert sum(each.lease.condition.in_flight for each in member.endpoints) == 1


def test_an_endpoint_that_joins_without_the_store_has_its_share() -> None:
    member = Member(SlotsInMemory(), LIMITS)
    first, second = member.endpoints
    member.leases.alone(1 / 2, 1e9)
    member.pool.follow([first])
    second.lease.limit = 0
    member.pool.follow([first, second])
    assert (first.lease.limit, second.lease.limit) == (3, 1)
