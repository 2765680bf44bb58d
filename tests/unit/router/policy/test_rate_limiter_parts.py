"""A tenant's own buckets, and those of its keys and users: charged together or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.policy.rate_limiter import RateLimiter
from lexora_router.policy.rate_limits import LimitRules, Part, RateLimits

WIDE = RateLimits(1000, 1000, 60_000, 1000)


def limiter(limits: RateLimits = WIDE, *, max_users: int = 100) -> RateLimiter:
    return RateLimiter(LimitRules(limits), 0.0, max_users=max_users)


def key(name: str = "k", limits: RateLimits = WIDE, tenant: str = "acme") -> Part:
    return Part("key", tenant, name, limits)


def user(name: str, limits: RateLimits = WIDE, tenant: str = "acme") -> Part:
    return Part("user", tenant, name, limits)


def test_a_tenant_is_charged_whichever_user_or_key_its_clients_are() -> None:
    rates = limiter(RateLimits(1, 5))
    parts = [[], [key()], [user("a")], [user("b"), key("other")], [user("ａ")], [user("A")], [user("a\u0301")]]
    assert [rates.check("acme", 0, 0.0, parts=each).allowed for each in parts] == [True] * 5 + [False] * 2
    refused = rates.check("acme", 0, 0.0, parts=[key()])
    assert (refused.part, refused.exceeded, refused.requests.limit) == (None, "requests", 5)


@pytest.mark.parametrize("part", [key(limits=RateLimits(1, 2)), user("bob", RateLimits(1, 2))])
def test_a_part_may_have_less_than_its_tenant(part: Part) -> None:
    rates = limiter()
    decisions = [rates.check("acme", 0, 0.0, parts=[part]) for _ in range(3)]
    assert [each.allowed for each in decisions] == [True, True, False]
    assert decisions[1].requests.remaining == 0  # what is shown is what is left for this caller
    assert (decisions[2].part, decisions[2].retry_after) == (part, 1.0)
    assert rates.check("acme", 0, 0.0).requests.remaining == 997  # the refused one has charged nothing
    assert rates.check("other", 0, 0.0, parts=[key("k", RateLimits(1, 2), "other")]).allowed


def test_a_part_never_has_more_than_its_tenant() -> None:
    rates = limiter(RateLimits(1, 2))
    assert sum(rates.check("acme", 0, 0.0, parts=[key(limits=RateLimits(1000, 1000))]).allowed for _ in range(9)) == 2


def test_calls_under_way_and_tokens_are_given_back_to_all() -> None:
    rates = limiter(RateLimits(1000, 1000, 600, 9))
    part = key(limits=RateLimits(1000, 1000, 300, 1))
    first = rates.check("acme", 200, 0.0, parts=[part])
    assert first.reservation is not None
    assert (first.tokens, first.concurrent) == ((300, 100, 40.0), (1, 0, 0.0))
    assert rates.check("acme", 0, 0.0, parts=[part]).exceeded == "concurrent"
    first.reservation.settle(50, 0.0)
    first.reservation.settle(50, 0.0)
    after = rates.peek("acme", 0, 0.0, parts=[part])
    assert after.tokens is not None
    assert after.concurrent is not None
    assert (after.tokens.remaining, after.concurrent.remaining) == (250, 0)
    own = rates.peek("acme", 0, 0.0)
    assert own.tokens is not None
    assert own.concurrent is not None
    assert (own.tokens.remaining, own.concurrent.remaining) == (550, 8)


def test_the_names_that_clients_choose_neither_fill_a_place_for_others_nor_grant_anything() -> None:
    rates = limiter(RateLimits(1, 8), max_users=2)
    slow = RateLimits(1e-6, 1)
    names = [str(number) for number in range(10)]
    assert sum(rates.check("acme", 0, 0.0, parts=[user(name, slow)]).allowed for name in names) == 8
    assert len(rates) == 1
    assert rates.check("other", 0, 0.0, parts=[user("0", slow, "other")]).allowed
    # Keys are given out, not chosen: those without a place share one.
    rates = limiter(RateLimits(1e-6, 3), max_users=2)
    for name in names[:2]:
        assert rates.check(name, 0, 0.0, parts=[key(name, slow)]).allowed
    assert sum(rates.check("acme", 0, 0.0, parts=[key(name, slow)]).allowed for name in names[2:]) == 3


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["acme", "other"]),
        st.sampled_from([(), ("k",), ("k", "u")]),
        st.integers(0, 40),
        st.integers(0, 40),
        st.sampled_from([0.0, 0.5, 1.0]),
    ),
    max_size=30,
)


@given(CALLS)
def test_all_or_nothing(calls: list[tuple[str, tuple[str, ...], int, int, float]]) -> None:
    """Each of the buckets, alone, would have let through all that was let through; a peek says what a check then does."""
    limits = {"acme": RateLimits(2, 4, 6000, 3), "k": RateLimits(1, 3, 3000, 2), "u": RateLimits(1, 2, 60, 9)}
    together = limiter(limits["acme"])
    alone = {(tenant, name): limiter(limits[name]) for tenant in ("acme", "other") for name in limits}
    now = 0.0
    for tenant, names, tokens, used, gap in calls:
        now += gap
        kinds = {"k": "key", "u": "user"}
        parts = [Part("key" if kinds[name] == "key" else "user", tenant, name, limits[name]) for name in names]
        peeked = together.peek(tenant, tokens, now, parts=parts)
        decision = together.check(tenant, tokens, now, parts=parts)
        assert (peeked.allowed, peeked.part, peeked.retry_after) == (decision.allowed, decision.part, decision.retry_after)
        each = [alone[tenant, name] for name in ("acme", *names)]
        expected = [one.peek("", tokens, now).allowed for one in each]
        assert decision.allowed == all(expected)
        if decision.allowed:
            assert decision.reservation is not None
            taken = [one.check("", tokens, now).reservation for one in each]
            decision.reservation.settle(used, now)
            for reservation in taken:
                assert reservation is not None
                reservation.settle(used, now)
