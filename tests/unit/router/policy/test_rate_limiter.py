from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_contract.answer import BucketState
from lexora_router.policy.limit_buckets import MAX_LOOKED_AT
from lexora_router.policy.rate_charge import Decision
from lexora_router.policy.rate_limiter import RateLimiter
from lexora_router.policy.rate_limits import LimitRules, RateLimits


def limiter(limits: RateLimits = RateLimits(), *, max_users: int = 100_000, **named: dict[str, RateLimits]) -> RateLimiter:  # noqa: B008
    return RateLimiter(LimitRules(limits, **named), 0, max_users=max_users)


def spend(rates: RateLimiter, user: str, times: int, now: float = 0, tokens: int = 0) -> int:
    """So many calls one after the other; how many were let through."""
    decisions = []
    for _ in range(times):
        decisions.append(rates.check(user, tokens, now))
        settle(decisions[-1], None, now)
    return sum(decision.allowed for decision in decisions)


def test_requests_at_four_times_the_limit() -> None:
    rates = limiter(RateLimits(10, 20))
    assert sum(rates.check("a", 0, i / 40).allowed for i in range(1000)) == 20 + int(10 * 999 / 40)


def test_one_user_does_not_use_up_another() -> None:
    rates = limiter(RateLimits(1, 5))
    assert (spend(rates, "a", 9), spend(rates, "b", 9)) == (5, 5)


def test_a_refusal_says_what_is_exceeded_and_when_to_come_back() -> None:
    rates = limiter(RateLimits(2, 3))
    spend(rates, "a", 3)
    decision = rates.check("a", 0, 0.1)
    assert (decision.allowed, decision.exceeded, decision.tokens, decision.reservation) == (False, "requests", None, None)
    assert decision.retry_after == pytest.approx(0.4)
    assert decision.requests == BucketState(3, 0, pytest.approx(1.4))
    assert rates.check("a", 0, 0.1 + decision.retry_after).allowed


def test_a_refusal_for_tokens_costs_no_request_and_the_other_way_round() -> None:
    rates = limiter(RateLimits(1, 2, 600))
    first = rates.check("a", 500, 0)
    assert first.allowed
    assert first.tokens == BucketState(600, 100, 50)
    second = rates.check("a", 200, 0)
    assert (second.allowed, second.exceeded, second.retry_after) == (False, "tokens", 10)
    assert second.requests.remaining == 1
    assert rates.check("a", 10, 0).allowed
    third = rates.check("a", 10, 0)
    assert (third.allowed, third.exceeded) == (False, "requests")
    assert third.tokens is not None
    assert third.tokens.remaining == 90


def test_a_reservation_is_settled_once_with_real_usage() -> None:
    rates = limiter(RateLimits(100, 100, 600))
    reservation = rates.check("a", 500, 0).reservation
    assert reservation is not None
    reservation.settle(50, 0)
    reservation.settle(0, 0)
    decision = rates.check("a", 100, 0)
    assert decision.tokens == BucketState(600, 450, 15)


def test_more_than_reserved_is_charged_too() -> None:
    rates = limiter(RateLimits(100, 100, 600))
    reservation = rates.check("a", 500, 0).reservation
    assert reservation is not None
    reservation.settle(700, 0)
    decision = rates.check("a", 1, 0)
    assert (decision.allowed, decision.retry_after) == (False, pytest.approx(10.1))


@pytest.mark.parametrize(("claimed", "charged"), [(100, 100), (10**400, 600)])
def test_unknown_usage_leaves_the_estimate_up_to_a_minutes_worth(claimed: int, charged: int) -> None:
    rates = limiter(RateLimits(100, 100, 600))
    reservation = rates.check("a", claimed, 0).reservation
    assert reservation is not None
    reservation.settle(None, 0)
    decision = rates.check("a", 600, 0)
    assert decision.tokens is not None
    assert decision.tokens.remaining == 600 - charged


def test_a_claim_beyond_reason_reserves_what_the_bucket_holds_and_no_debt() -> None:
    rates = limiter(RateLimits(100, 100, 600))
    reservation = rates.check("a", 10**400, 0).reservation
    assert reservation is not None
    assert reservation.tokens == 600
    assert rates.check("a", 50, 0).retry_after == pytest.approx(5)  # others of the account go on at its rate
    assert rates.check("a", 50, 5).allowed
    reservation.settle(1000, 5)  # what was used in truth is charged
    assert rates.check("a", 50, 5).retry_after == pytest.approx(45)


def test_calls_under_way_are_bounded_and_come_back_once() -> None:
    rates = limiter(RateLimits(100, 100, None, 2), users={"boss": RateLimits(100, 100, None, 3)})
    one, two = (rates.check("a", 0, 0) for _ in range(2))
    assert (one.concurrent, two.concurrent) == (BucketState(2, 1, 0), BucketState(2, 0, 0))
    refused = rates.check("a", 0, 0)
    assert (refused.allowed, refused.exceeded, refused.retry_after) == (False, "concurrent", 1)
    assert refused.requests.remaining == 98, "a refusal costs no request"
    assert rates.peek("a", 0, 0).exceeded == "concurrent"
    assert rates.check("b", 0, 0).allowed
    assert sum(rates.check("boss", 0, 0).allowed for _ in range(9)) == 3
    settle(one, 0, 0)
    settle(one, 0, 0)
    assert [rates.check("a", 0, 0).allowed for _ in range(2)] == [True, False]


def test_a_bound_on_calls_under_way_that_comes_by_a_reload_knows_those_under_way() -> None:
    rates = limiter(RateLimits(100, 100))
    under_way = [rates.check("a", 0, 0) for _ in range(3)]
    rates.configure(LimitRules(RateLimits(100, 100, None, 3)), max_users=10)
    assert rates.check("a", 0, 0).exceeded == "concurrent"
    settle(under_way[0], 0, 0)
    assert rates.check("a", 0, 0).allowed


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 600), st.floats(0, 1)), max_size=60), st.integers(1, 4))
def test_tokens_used_never_exceed_the_limit_by_more_than_one_reservation(
    calls: list[tuple[float, int, float]], at_once: int
) -> None:
    rates, now, used, largest = limiter(RateLimits(1000, 1000, 600)), 0.0, 0, 0
    under_way = []
    for gap, tokens, share in calls:
        now += gap
        reservation = rates.check("a", tokens, now).reservation
        if reservation is not None:
            under_way.append((reservation, int(tokens * share)))
            largest = max(largest, tokens)
        if len(under_way) >= at_once:
            oldest, actual = under_way.pop(0)
            oldest.settle(actual, now)
            used += actual
        assert used <= 600 + 10 * now + largest + 1


def test_a_users_own_limits_come_before_the_tiers_and_those_before_the_default() -> None:
    rates = limiter(RateLimits(1, 1), users={"boss": RateLimits(1, 4)}, tiers={"gold": RateLimits(1, 2)})
    assert sum(rates.check("boss", 0, 0, tier="gold").allowed for _ in range(9)) == 4
    assert sum(rates.check("a", 0, 0, tier="gold").allowed for _ in range(9)) == 2
    assert sum(rates.check("b", 0, 0, tier="unknown").allowed for _ in range(9)) == 1


def test_other_rules_keep_balances() -> None:
    rates = limiter(RateLimits(1, 10, 600))
    spend(rates, "a", 10, tokens=60)
    rates.configure(LimitRules(RateLimits(1, 100, 6000)), max_users=10)
    assert not rates.check("a", 1, 0).allowed
    assert rates.check("a", 1, 1).requests == BucketState(100, 0, 100)


def test_changing_tiers_to_and_fro_wins_nothing() -> None:
    rates = limiter(tiers={"free": RateLimits(1, 100, 60), "open": RateLimits(1, 100)})
    admitted = 0
    for _ in range(10):
        admitted += rates.check("a", 60, 0, tier="free").allowed
        rates.check("a", 60, 0, tier="open")
    assert admitted == 1


def test_the_least_recently_used_full_buckets_make_room() -> None:
    rates = limiter(RateLimits(1, 10), max_users=3)
    for user in ("busy", "old", "new"):
        spend(rates, user, 1)
    spend(rates, "busy", 9, 1)
    assert spend(rates, "guest", 20, 2) == 10
    assert len(rates) == 3
    assert spend(rates, "busy", 10, 2) == 2  # 9 taken at second 1, one back since: its balance survived
    assert rates.check("new", 0, 2).requests.remaining == 9  # so did this one's place
    assert list(rates._tenants) == ["guest", "busy", "new"]


def test_when_none_is_full_newcomers_share_one_pair() -> None:
    rates = limiter(RateLimits(1e-6, 5), max_users=2)
    spend(rates, "a", 1)
    spend(rates, "b", 1)
    assert sum(rates.check(f"spoofed-{i}", 0, 1).allowed for i in range(100)) == 5
    assert spend(rates, "a", 9, 1) == 4
    assert len(rates) == 2


def test_a_bucket_with_a_call_under_way_is_not_forgotten_though_it_is_full_again() -> None:
    rates = limiter(RateLimits(10, 10, 600), max_users=1)
    reservation = rates.check("a", 100, 0).reservation
    assert reservation is not None
    rates.check("b", 1, 1000)
    reservation.settle(1000, 1000)
    assert not rates.check("a", 1, 1000).allowed


def test_the_search_for_room_goes_on_where_it_stopped() -> None:
    rates = limiter(RateLimits(1e-6, 5), max_users=20, users={"idle": RateLimits(1e6, 5)})
    for i in range(19):
        spend(rates, f"busy-{i}", 1)
    spend(rates, "idle", 1)
    rounds = -(-20 // MAX_LOOKED_AT)
    for i in range(rounds):
        spend(rates, f"guest-{i}", 1, 1)
    assert f"guest-{rounds - 1}" in rates._tenants
    assert "idle" not in rates._tenants


def test_the_map_is_bounded() -> None:
    rates = limiter(RateLimits(1, 1), max_users=5)
    for i in range(50):
        spend(rates, str(i), 1, i * 10)
    assert len(rates) == 5


steps = st.lists(st.tuples(st.sampled_from("abcdefg"), st.floats(0, 2), st.integers(1, 200), st.integers(0, 400)), max_size=80)


@given(steps, st.integers(1, 4))
def test_eviction_never_grants_quota(calls: list[tuple[str, float, int, int]], max_users: int) -> None:
    """Those who always had buckets of their own get the very answers that a limiter without a bound gives."""
    limits = RateLimits(0.7, 3, 300)
    bounded, unbounded = limiter(limits, max_users=max_users), limiter(limits)
    shared: set[str] = set()
    admitted: dict[str, list[float]] = defaultdict(list)
    now, waiting = 0.0, []
    for user, gap, tokens, used in calls:
        now += gap
        mine, reference = bounded.check(user, tokens, now), unbounded.check(user, tokens, now)
        if user not in bounded._tenants:
            shared.add(user)
        assert len(bounded) <= max_users
        if user not in shared:
            assert (mine.allowed, mine.exceeded) == (reference.allowed, reference.exceeded)
            assert mine.requests == pytest.approx(reference.requests)
            assert mine.tokens == pytest.approx(reference.tokens)
        if mine.allowed:
            admitted[user if user in bounded._tenants else "the shared pair"].append(now)
        waiting.append((mine, reference, used))
        if len(waiting) > 3:
            for decision in waiting[0][:2]:
                settle(decision, waiting[0][2], now)
            waiting.pop(0)
    for times in admitted.values():
        for i, since in enumerate(times):
            assert len(times) - i <= 3 + 0.7 * (times[-1] - since) + 1e-3


def settle(decision: Decision, used: int | None, now: float) -> None:
    if decision.reservation is not None:
        decision.reservation.settle(used, now)


@pytest.mark.parametrize("max_users", [0, -1])
def test_no_room_for_anybody_is_refused(max_users: int) -> None:
    with pytest.raises(ValueError, match="max_users"):
        limiter(max_users=max_users)
    with pytest.raises(ValueError, match="max_users"):
        limiter().configure(LimitRules(), max_users=max_users)


def test_where_a_user_stands_is_told_without_a_charge() -> None:
    rates = limiter(RateLimits(1, 5, 600))
    assert rates.standing("a", 0) == (BucketState(5, 5, 0), BucketState(600, 600, 0), None)
    rates.check("a", 100, 0)
    for _ in range(10):
        assert rates.standing("a", 0) == (BucketState(5, 4, 1), BucketState(600, 500, 10), None)
    assert rates.standing("a", 1, tier="none such") == (BucketState(5, 5, 0), BucketState(600, 510, 9), None)
    assert limiter().standing("a", 0) == (BucketState(20, 20, 0), None, None)


def test_a_request_without_tokens_is_let_in_while_tokens_are_owed() -> None:
    rates = limiter(RateLimits(1, 3, 600))
    first = rates.check("a", 600, 0)
    settle(first, 6000, 0)
    decision = rates.check("a", 0, 0)
    assert (decision.allowed, decision.requests.remaining) == (True, 1)
    assert decision.tokens is not None
    assert decision.tokens.remaining == 0
    assert rates.check("a", 1, 0).exceeded == "tokens"
