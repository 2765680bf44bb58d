"""A peek says what the next check decides, and leaves no trace."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.router.snapshot import snapshot

from lexora_router.policy.rate_limiter import RateLimiter
from lexora_router.policy.rate_limits import LimitRules, RateLimits

USERS = st.sampled_from("abcde")
TIERS = st.sampled_from(["", "gold"])
CALLS = st.tuples(USERS, st.integers(0, 200), st.floats(0, 5), TIERS, st.booleans())


@given(st.lists(CALLS, max_size=40), USERS, st.integers(0, 200), TIERS, st.sampled_from([1, 3, 100]))
def test_it_decides_as_check_does_and_changes_nothing(
    calls: list[tuple[str, int, float, str, bool]], user: str, tokens: int, tier: str, most: int
) -> None:
    rules = LimitRules(RateLimits(1, 3, 120), {"e": RateLimits(0.5, 1)}, {"gold": RateLimits(2, 5, 600)})
    limiter, now = RateLimiter(rules, 0.0, max_users=most), 0.0
    for name, cost, passed, of, settled in calls:
        now += passed
        decision = limiter.check(name, cost, now, tier=of)
        if settled and decision.reservation is not None:
            decision.reservation.settle(cost // 2, now)
    before = snapshot(limiter)
    peeked = limiter.peek(user, tokens, now, tier=tier)
    assert snapshot(limiter) == before
    checked = limiter.check(user, tokens, now, tier=tier)
    assert replace(peeked, reservation=None) == replace(checked, reservation=None)


def test_a_limit_that_has_changed_counts_at_once() -> None:
    limiter = RateLimiter(LimitRules(RateLimits(1, 10)), 0.0)
    limiter.check("a", 1, 0.0)
    limiter.configure(LimitRules(RateLimits(1, 2)), max_users=10)
    assert limiter.peek("a", 1, 0.0).requests.limit == 2
    assert limiter._tenants["a"].limits.burst == 10, "its own change comes with its next call"


def test_asking_about_a_stranger_makes_no_buckets() -> None:
    limiter = RateLimiter(LimitRules(RateLimits(1, 2)), 0.0)
    for _ in range(5):
        assert limiter.peek("stranger", 1, 0.0).requests.remaining == 1
    assert len(limiter) == 0
