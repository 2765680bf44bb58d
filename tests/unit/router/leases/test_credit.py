import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.support.replicas import MemoryStore, Spent, World

from lexora_router.policy.rate_limits import LimitRules, RateLimits


def test_a_burst_is_shared_to_the_last_call_and_no_further() -> None:
    world = World(RateLimits(1, 100))
    allowed = [0, 0, 0]
    for at in range(150):
        allowed[at % 3] += world.replicas[at % 3].check().allowed
    assert 98 <= sum(allowed) <= 100, "each replica may hold a part of a call"
    refused = world.replicas[0].check()
    assert (refused.allowed, refused.exceeded, refused.requests.limit, refused.requests.remaining) == (
        False,
        "requests",
        100,
        0,
    )
    assert 0.1 <= refused.retry_after <= 1


@pytest.mark.parametrize("burst", [1, 2, 5, 20, 100])
def test_over_saturated_replicas_a_tenant_gets_its_rate_exactly(burst: int) -> None:
    rate, seconds = 10.0, 30
    world = World(RateLimits(rate, burst))
    spent = Spent(rate, burst, lambda: world.now)
    for _ in range(seconds * 20):
        world.step(0.05)
        for replica in world.replicas:
            for _ in range(2):
                if replica.check().allowed:
                    spent.add(1)
        for replica in world.replicas if round(world.now * 20) % 2 else ():
            replica.exchange()
    assert spent.over < 1e-3
    assert spent.total >= 0.99 * (burst + rate * seconds) - 3


def test_replicas_that_ask_at_different_rates_share_alike() -> None:
    world = World(RateLimits(100, 100))
    allowed = [0, 0, 0]
    for step in range(3000):
        world.step(0.01)
        for at, replica in enumerate(world.replicas):
            for _ in range((20, 5, 2)[at]):
                allowed[at] += replica.check().allowed
            if step % 10 == at:
                replica.exchange()
    assert sum(allowed) == pytest.approx(3100, rel=0.01)
    assert min(allowed) > 600, "a quiet replica is not starved by a busy one"


def test_tenants_that_are_gone_are_forgotten_by_the_store_and_by_replicas() -> None:
    store = MemoryStore()
    world = World(RateLimits(100, 100, 60_000, 10), store=store)
    one = world.replicas[0]
    for number in range(300):
        world.step(0.001)
        reservation = one.check(10, tenant=f"t{number}").reservation
        assert reservation is not None
        reservation.settle(10, world.now)
    assert len(store) > 900
    world.tick(times=50)
    for _ in range(600):
        world.step(0.5)
        decision = one.check(10)
        assert decision.requests.remaining == 99
        assert decision.reservation is not None
        decision.reservation.settle(10, world.now)
        one.exchange()
    assert len(store) < 20
    one.limiter.configure(_rules(world.limits), max_users=1)
    for _ in range(50):
        one.check(tenant="w")
    assert len(one.limiter) < 10


def test_a_refused_tenant_does_not_cost_an_exchange_for_each_call() -> None:
    world = World(RateLimits(0.5, 50))
    while world.replicas[0].check().allowed:
        pass
    before = world.exchanges
    for _ in range(1000):
        world.step(0.001)
        assert not world.replicas[0].check().allowed
    assert world.exchanges - before <= 5


def test_at_a_steady_load_calls_are_let_through_without_asking() -> None:
    world = World(RateLimits(1000, 1000, 6_000_000, 400))
    under_way = []

    def second() -> int:
        for step in range(100):
            world.step(0.01)
            for at, replica in enumerate(world.replicas):
                for _ in range(2):
                    decision = replica.check(100)
                    assert decision.allowed
                    under_way.append(decision.reservation)
                if step % 10 == at:
                    replica.exchange()
            while len(under_way) > 60:
                under_way.pop(0).settle(60, world.now)
        return world.exchanges

    second()
    before = second()
    assert second() - before <= 30 + 3, "three ticks of ten a second"


def test_an_idle_lease_goes_back() -> None:
    world = World(RateLimits(100, 100, 600_000))
    for _ in range(30):
        world.step(0.01)
        assert world.replicas[1].check(50).allowed
    world.tick()
    assert world.replicas[1].lease("requests").balance(world.now) > 0
    world.tick(times=40)
    for dimension in ("requests", "tokens"):
        assert world.replicas[1].lease(dimension).balance(world.now) == 0
    assert world.replicas[2].check(10_000).allowed
    assert world.replicas[2].check(590_000 - 10_000).allowed


def test_what_a_replica_holds_is_free_when_it_leaves_or_dies() -> None:
    world = World(RateLimits(0.001, 100))
    one, two, _ = world.replicas
    while one.check().requests.remaining > 50:
        world.step(0.001)
    one.exchange()
    assert one.lease("requests").balance(world.now) > 1
    one.die()
    world.tick(times=35)
    assert sum(two.check().allowed for _ in range(100)) == 50
    assert two.check().requests.remaining == 0


def test_tokens_that_were_not_used_come_back_to_all() -> None:
    world = World(RateLimits(1000, 1000, 6000))
    one, two, _ = world.replicas
    reservations = [one.check(2000).reservation for _ in range(3)]
    assert not two.check(2000).allowed
    for reservation in reservations:
        assert reservation is not None
        reservation.settle(100, world.now)
    one.exchange()
    one.exchange()
    world.tick()
    assert two.check(2000).allowed


def test_more_than_was_reserved_is_a_debt_of_all() -> None:
    world = World(RateLimits(1000, 1000, 6000))
    one, two, _ = world.replicas
    reservation = one.check(1000).reservation
    assert reservation is not None
    reservation.settle(8000, world.now)
    one.exchange()
    refused = two.check(100)
    assert (refused.allowed, refused.exceeded) == (False, "tokens")
    assert refused.retry_after == pytest.approx(21, abs=0.2)


def test_places_hold_over_replicas_and_come_back_on_every_way_out() -> None:
    world = World(RateLimits(1000, 1000, None, 5))
    held = [replica.check() for replica in (*world.replicas, *world.replicas)]
    assert [decision.allowed for decision in held] == [True] * 5 + [False]
    assert (held[-1].exceeded, held[-1].retry_after) == ("concurrent", 1.0)
    assert held[-1].concurrent is not None
    assert (held[-1].concurrent.limit, held[-1].concurrent.remaining) == (5, 0)
    assert held[0].reservation is not None
    held[0].reservation.settle(0, world.now)
    assert world.replicas[0].nudged, "a place of few is free for the others at once"
    world.replicas[0].exchange()
    world.step(0.1)
    assert world.replicas[2].check().allowed
    assert not world.replicas[0].check().allowed
    world.replicas[2].die()
    world.tick(times=35)
    assert [world.replicas[0].check().allowed for _ in range(3)] == [True, True, False], "two calls died with their replica"


def test_many_places_are_leased_ahead() -> None:
    world = World(RateLimits(1e6, 1_000_000, None, 300))
    under_way = []
    for step in range(400):
        world.step(0.01)
        for at, replica in enumerate(world.replicas):
            decision = replica.check()
            assert decision.reservation is not None
            under_way.append(decision.reservation)
            if step % 10 == at:
                replica.exchange()
        while len(under_way) > 150:
            under_way.pop(0).settle(0, world.now)
        if step == 300:
            before = world.exchanges
    assert world.exchanges - before <= 40
    allowed = sum(replica.check().allowed for replica in world.replicas for _ in range(300))
    assert 135 <= allowed <= 150, "all but what was freed since the last exchange"


def test_a_bound_on_calls_under_way_that_comes_by_a_reload_knows_those_under_way() -> None:
    world = World(RateLimits(1000, 1000))
    one, two, _ = world.replicas
    held = [one.check() for _ in range(3)]
    for replica in world.replicas:
        replica.limiter.configure(_rules(RateLimits(1000, 1000, None, 4)), max_users=100)
    assert one.check().allowed
    one.exchange()
    assert not two.check().allowed
    assert held[0].reservation is not None
    held[0].reservation.settle(0, world.now)
    one.exchange()
    world.step(0.2)
    assert two.check().allowed


def test_other_limits_are_no_gift_also_while_a_rollout_has_both() -> None:
    world = World(RateLimits(1, 20))
    one, two, _ = world.replicas
    while one.check().allowed:
        pass
    two.limiter.configure(_rules(RateLimits(1, 500)), max_users=100)
    for _ in range(5):
        assert not two.check().allowed
        world.tick()
    world.tick(times=100)
    assert sum(two.check().allowed for _ in range(50)) == 10
    assert one.check().requests.limit == 20


def test_peek_and_standing_say_what_all_replicas_have_left_and_take_nothing() -> None:
    world = World(RateLimits(1, 100, 60_000, 50))
    one, two, _ = world.replicas
    for _ in range(40):
        world.step(0.001)
        assert one.check(1000).allowed
    one.exchange()
    for replica in (one, two):
        first = replica.check(0)
        assert first.allowed
        peeked = replica.limiter.peek("a", 0, world.now)
        again = replica.limiter.peek("a", 0, world.now)
        assert peeked.requests.remaining == again.requests.remaining == first.requests.remaining - 1
        assert peeked.tokens is not None
        assert 14_900 <= peeked.tokens.remaining <= 20_100
        requests, tokens, concurrent = replica.limiter.standing("a", world.now)
        assert (requests.limit, requests.remaining) == (100, first.requests.remaining)
        assert tokens is not None
        assert concurrent is not None
        assert concurrent.remaining <= 50 - 40
    assert not two.limiter.peek("a", 30_000, world.now).allowed
    assert two.limiter.peek("a", 10_000, world.now).allowed


def test_full_buckets_make_room_for_new_tenants_and_their_totals_begin_anew() -> None:
    world = World(RateLimits(10, 10))
    one, two, _ = world.replicas
    one.limiter.configure(_rules(world.limits), max_users=1)
    assert one.check().allowed
    one.exchange()
    world.tick(times=20)
    assert one.check(tenant="b").allowed
    assert len(one.limiter) == 1
    world.tick(times=20)
    assert sum(one.check().allowed for _ in range(20)) == 10, "the store has kept where `a` stands"
    assert not two.check().allowed


def _rules(limits: RateLimits):
    return LimitRules(limits)


# The store out of reach.


def test_alone_each_replica_has_its_share() -> None:
    world = World(RateLimits(30, 60))
    for replica in world.replicas:
        replica.check()
    world.tick(times=30)
    spent = Spent(30, 60, lambda: world.now)
    for step in range(500):
        for replica in world.replicas:
            if step % 10 == 0:
                replica.exchange("lost")
            if replica.check().allowed:
                spent.add(1)
        world.step(0.02)
    assert spent.over < 1
    assert spent.total >= 0.99 * (60 + 30 * 10) - 3
    world.tick()
    for _ in range(100):
        for replica in world.replicas:
            if replica.check().allowed:
                spent.add(1)
        world.tick(0.02)
    assert spent.over < 5, "what was spent alone is known to the store"
    assert spent.total >= 0.99 * (60 + 30 * 12) - 8, "and no more than that"


def test_a_store_that_comes_and_goes_before_it_was_heard_is_no_gift_each_time() -> None:
    world = World(RateLimits(10, 60))
    for replica in world.replicas:
        replica.check()
    world.tick(times=40)
    spent = Spent(10, 60, lambda: world.now)
    for _ in range(20):
        for replica in world.replicas:
            replica.exchange("lost")
        world.step(0.5)
        for replica in world.replicas:
            while replica.check().allowed:
                spent.add(1)
            replica.exchange()  # it answers again, and nothing has been said to it yet
    assert spent.over < 1
    assert spent.total >= 0.85 * (60 + 10 * 10)


@pytest.mark.parametrize("seconds", [0.5, 2, 10])
@pytest.mark.parametrize("emptied", [False, True])
def test_an_idle_tenant_finds_its_bucket_full_after_the_store_was_away(seconds: float, emptied: bool) -> None:
    world = World(RateLimits(30, 60))
    for replica in world.replicas:
        assert replica.check().allowed
    world.tick(times=30)
    for replica in world.replicas:
        replica.exchange("lost")
        assert replica.check().allowed
    if emptied:
        world.store.empty()
    world.step(seconds)
    world.tick(0.1, times=25)
    assert 58 <= sum(world.replicas[at % 3].check().allowed for at in range(200)) <= 60


def test_a_store_that_comes_back_empty_is_no_gift() -> None:
    world = World(RateLimits(1, 60, 600_000))
    spent = Spent(1, 60, lambda: world.now)
    for at in range(120):
        if world.replicas[at % 3].check(10).allowed:
            spent.add(1)
    world.tick()
    world.store.empty()
    world.tick()
    for at in range(30):
        if world.replicas[at % 3].check(10).allowed:
            spent.add(1)
    assert 58 <= spent.total <= 60
    assert spent.over < 1e-3


def test_places_alone_are_shared_and_calls_under_way_keep_theirs() -> None:
    world = World(RateLimits(1000, 1000, None, 6))
    one = world.replicas[0]
    held = [one.check() for _ in range(4)]
    world.tick()
    for replica in world.replicas:
        replica.exchange("lost")
    assert [replica.check().allowed for replica in world.replicas for _ in range(3)] == [False] * 3 + [True, True, False] * 2
    for decision in held[:3]:
        assert decision.reservation is not None
        decision.reservation.settle(0, world.now)
    assert [one.check().allowed for _ in range(2)] == [True, False]
    world.tick()
    world.step(0.2)
    assert not any(replica.check().allowed for replica in world.replicas), "six are under way"


fates = st.sampled_from(["heard", "heard", "heard", "lost", "unheard"])
steps = st.lists(
    st.tuples(
        st.integers(0, 2),  # the replica
        st.sampled_from(["call", "call", "call", "settle", "exchange", "die", "empty", "silence"]),
        fates,
        st.sampled_from([0.0, 0.001, 0.05, 0.3, 2.0, 5.0]),
        st.integers(1, 400),
    ),
    max_size=60,
)


@settings(max_examples=100, deadline=None, phases=[phase for phase in Phase if phase is not Phase.explain])
@given(steps, st.sampled_from([5, 20, 100]), st.booleans())
def test_whatever_happens_no_more_is_spent_than_the_limit_and_what_was_lost(
    happening: list[tuple[int, str, str, float, int]], burst: int, well: bool
) -> None:
    """`well`: no exchange is lost, and nothing dies: then the limit is exact."""
    rate, per_minute = 7.0, 1200
    world = World(RateLimits(rate, burst, per_minute))
    requests = Spent(rate, burst, lambda: world.now)
    tokens = Spent(per_minute / 60, per_minute, lambda: world.now)
    open_calls, lost, lost_tokens = [], 0.0, 0.0
    for at, what, fate, seconds, amount in happening:
        whole = int(seconds)
        world.tick(1.0, times=whole)
        world.step(seconds - whole)
        if at >= len(world.replicas):
            continue
        replica = world.replicas[at]
        if what == "call":
            decision = replica.check(amount, fate="heard" if well else fate)
            if decision.allowed:
                requests.add(1)
                tokens.add(amount)
                open_calls.append((replica, decision.reservation, amount))
        elif what == "settle" and open_calls:
            owner, reservation, reserved = open_calls.pop(0)
            if owner in world.replicas:
                reservation.settle(reserved // 4, world.now)
                tokens.add(reserved // 4 - reserved)
        elif what == "exchange":
            if not well and fate != "heard" and not replica.degraded:
                lost += burst / replica.members
                lost_tokens += per_minute / replica.members
            replica.exchange("heard" if well else fate)
        elif what == "die" and not well and len(world.replicas) > 1:
            lost += burst
            lost_tokens += per_minute
            replica.die()
        elif what in ("empty", "silence") and not well:
            if what == "empty":
                world.store.empty()
            else:
                world.step(4)
            lost += burst
            lost_tokens += per_minute
    assert requests.over <= 1e-3 + lost
    assert tokens.over <= 1e-3 + lost_tokens
    for each in world.replicas:
        each.exchange()
    world.tick(2.0, times=150)
    last = world.replicas[0].check(per_minute)
    assert last.allowed, "nothing is lost for good"
    assert last.requests.remaining == burst - 1
