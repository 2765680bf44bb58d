from typing import Any

import pytest
from tests.unit.router.support import make_call

from lexora_router.config import Config
from lexora_router.fleet.shares import Standing
from lexora_router.fleet.tenants import ASSUMED_OUTPUT_TOKENS, FORM_TOKENS, Tenancy, input_estimate, total_estimate
from lexora_router.policy.rate_limits import RateLimits
from lexora_router.principal import Grants, Principal


def tenancy(**config: Any) -> Tenancy:
    return Tenancy(Config.model_validate(config))


TENANTS = {
    "chat": {"weight": 4, "priority": "high"},
    "batch": {"priority": "low", "max_priority": 30},
    "late": {"max_priority": 10},
}


@pytest.mark.parametrize(
    ("user", "asked", "standing"),
    [
        ("", None, Standing(50, 1.0)),
        ("", 100, Standing(100, 1.0)),
        ("", 0, Standing(0, 1.0)),
        ("unlisted", 70, Standing(70, 1.0)),
        ("chat", None, Standing(100, 4.0)),
        ("chat", 20, Standing(20, 4.0)),
        ("batch", None, Standing(0, 1.0)),
        ("batch", 100, Standing(30, 1.0)),
        ("late", None, Standing(10, 1.0)),
    ],
)
def test_what_is_asked_or_the_tenant_s_default_capped_by_what_it_may_ask(
    user: str, asked: int | None, standing: Standing
) -> None:
    call = make_call(user=user, priority=asked)
    assert tenancy(tenants=TENANTS).standing(call) == standing
    assert call.priority == asked  # a question changes nothing


def test_the_nameless_have_the_settings_of_the_tenant_anonymous() -> None:
    limits = {"tiers": {"t": {}}, "users": {"anonymous": {"burst": 7}}}
    made = tenancy(tenants={"anonymous": {"priority": "low", "weight": 0.5, "tier": "t"}}, rate_limit=limits)
    for call in (make_call(), make_call(unnamed="anonymous@10.0.0.1")):
        assert made.standing(call) == Standing(0, 0.5)
        assert made.tier(call.tenant) == "t"
        assert made.rules().limits(call.tenant, "t").burst == 7
    assert made.tier("anonymous.too@10.0.0.1") == ""


def test_input_is_estimated_by_the_body_once() -> None:
    call = make_call(body=b"x" * 400)
    assert input_estimate(call) == 100
    call.body = b""  # it is on its way
    assert input_estimate(call) == 100


@pytest.mark.parametrize(("max_tokens", "output"), [(None, ASSUMED_OUTPUT_TOKENS), (7, 7), (0, 0), (-5, 0)])
def test_output_is_estimated_by_what_the_call_allows(max_tokens: int | None, output: int) -> None:
    assert total_estimate(make_call(body=b"x" * 400, max_tokens=max_tokens)) == 100 + output
    assert total_estimate(make_call(body=b"x" * 400, max_tokens=max_tokens, choices=3)) == 100 + 3 * output
    assert total_estimate(make_call(body=b"x" * 400, max_tokens=max_tokens, choices=3), context=5) == 100 + 3 * min(output, 5)


def test_sound_is_not_counted_as_text() -> None:
    assert input_estimate(make_call(body=b"x" * 1_000_000, content_type="multipart/form-data; boundary=b")) == FORM_TOKENS


RATE_LIMIT = {
    "default_rate": 5.0,
    "default_burst": 10,
    "tokens_per_minute": 1000,
    "max_concurrent": 8,
    "tiers": {"gold": {"rate": 50.0, "burst": 100, "max_concurrent": 4}, "tokens": {"tokens_per_minute": 9}},
    "users": {
        "own": {"rate": 1.0, "burst": 1, "tokens_per_minute": 1},
        "part": {"rate": 2.0},
        "tiered": {"tier": "gold", "burst": 3},
        "by-tenant": {"burst": 4, "max_concurrent": 2},
    },
}


@pytest.mark.parametrize(
    ("user", "limits"),
    [
        ("anybody", RateLimits(5.0, 10, 1000, 8)),
        ("own", RateLimits(1.0, 1, 1, 8)),
        ("part", RateLimits(2.0, 10, 1000, 8)),
        ("tiered", RateLimits(50.0, 3, 1000, 4)),
        ("by-tenant", RateLimits(50.0, 4, 1000, 2)),
        ("tenant-only", RateLimits(5.0, 10, 9, 8)),
    ],
)
def test_limits_are_the_user_s_own_then_the_tier_s_then_the_defaults(user: str, limits: RateLimits) -> None:
    made = tenancy(rate_limit=RATE_LIMIT, tenants={"by-tenant": {"tier": "gold"}, "tenant-only": {"tier": "tokens"}})
    assert made.rules().limits(user, made.tier(user)) == limits


def test_whether_anybody_s_tokens_are_limited() -> None:
    one = {"tokens_per_minute": 1}
    sections: list[dict[str, Any]] = [one, {"tiers": {"t": one}}, {"users": {"u": one}}, {"max_concurrent": 1}, {}]
    assert [tenancy(rate_limit=section).limits_tokens() for section in sections] == [True, True, True, False, False]


def test_without_tenants_there_are_no_tiers() -> None:
    assert tenancy().tier("anybody") == ""
    assert tenancy().rules().limits("anybody", "") == RateLimits(1000.0, 1000, None, 1000)


def known(**config: Any) -> Tenancy:
    """Tenants whose callers show credentials."""
    made = Config.model_validate(config)
    return Tenancy(made.model_copy(update={"auth": made.auth.model_copy(update={"mode": "keys"})}))


@pytest.mark.parametrize(
    ("tenant", "grants", "asked", "priority"),
    [
        ("chat", Grants(), None, 100),
        ("chat", Grants(priority=20), None, 20),
        ("chat", Grants(priority=20), 90, 90),
        ("chat", Grants(max_priority=40), None, 40),
        ("chat", Grants(max_priority=40), 90, 40),
        ("batch", Grants(priority=90, max_priority=90), None, 30),  # never more than the tenant has
        ("batch", Grants(max_priority=90), 90, 30),
    ],
)
def test_a_key_may_have_a_lower_priority_than_its_tenant(tenant: str, grants: Grants, asked: int | None, priority: int) -> None:
    call = make_call(account=tenant, principal=Principal(tenant, "id", grants=grants), priority=asked)
    made = known(tenants=TENANTS)
    assert made.standing(call).priority == priority
    assert made.most_of(call) == min(
        {"chat": 100, "batch": 30}[tenant], 100 if grants.max_priority is None else grants.max_priority
    )


def test_what_of_a_tenant_is_limited_apart() -> None:
    users = {"acme": {"rate": 7, "burst": 9, "max_concurrent": 5}, "acme/bob": {"rate": 3, "burst": 3}, "acme/*": {"burst": 2}}
    made = known(rate_limit={"users": users | {"*/*": {"rate": 1}}, "default_rate": 50, "default_burst": 60})

    def parts(tenant: str = "acme", grants: Grants = Grants(), **call: Any) -> list[tuple[str, str, RateLimits]]:  # noqa: B008
        of = made.parts(make_call(account=tenant, principal=Principal(tenant, "id", grants=grants), **call))
        assert {part.tenant for part in of} == {tenant}
        return [(part.kind, part.name, part.limits) for part in of]

    bob, others, everywhere = RateLimits(3, 3, None, 1000), RateLimits(50, 2, None, 1000), RateLimits(1, 60, None, 1000)
    assert parts(user="bob") == [("user", "bob", bob)]
    assert parts(user="Bob") == [("user", "Bob", others)]
    assert parts(unnamed="anonymous@10.0.0.1") == [("user", "anonymous@10.0.0.1", others)]
    assert parts("other", user="bob") == [("user", "bob", everywhere)]
    assert parts(user="bob", grants=Grants(rate=2.5))[0] == ("key", "id", RateLimits(2.5, 3, None, 5))
    assert parts(user="bob", grants=Grants(rate=99, tokens_per_minute=7))[0][2] == RateLimits(99, 9, 7, 5)
    assert parts(user="bob", grants=Grants(burst=4, max_concurrent=1))[0][2] == RateLimits(7, 4, None, 1)
    assert not known().parts(make_call(account="acme", user="bob", principal=Principal("acme", "id")))
