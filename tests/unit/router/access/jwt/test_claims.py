from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_contract.access import Scope
from lexora_router.access.jwt.claims import claim, principal_of
from lexora_router.config.jwt import JwtProvider
from lexora_router.errors import Unauthenticated
from lexora_router.principal import Grants, Principal

CLAIMS: dict[str, Any] = {"iss": "https://a.example", "sub": "alice", "org": "acme"}
CALL = frozenset({Scope.OPEN, Scope.KNOWN, Scope.CALL})


def provider(**settings: Any) -> JwtProvider:
    usual = {"issuer": "https://a.example", "audience": "x", "jwks_url": "https://a.example/k", "claims": {"tenant": "org"}}
    return JwtProvider(**(usual | settings))


def principal(provider: JwtProvider, **claims: Any) -> Principal:
    return principal_of({name: value for name, value in (CLAIMS | claims).items() if value is not None}, provider)


def test_by_default_a_token_may_call_and_no_more() -> None:
    assert principal(provider()) == Principal(tenant="acme", key="a.example:alice", scopes=CALL)


def test_subjects_of_two_issuers_are_never_one() -> None:
    assert principal(provider(name="b")).key == "b:alice"


def test_every_part_of_a_principal_may_be_a_claim() -> None:
    names = {
        "subject": "client.id",
        "tenant": "https://example.com/org",
        "name": "email",
        "models": "models",
        "operations": "paths",
        "scopes": "scope",
        "priority": "prio",
        "max_priority": "most",
        "rate": "rps",
        "burst": "burst",
        "tokens_per_minute": "tpm",
        "max_concurrent": "limits.calls",
    }
    claims = {
        "client": {"id": "batch"},
        "https://example.com/org": "acme",
        "email": "a@example.com",
        "models": ["qwen*", "bge-m3"],
        "paths": "/v1/chat/* /v1/embeddings",
        "scope": "openid lexora:call lexora:observe",
        "prio": "high",
        "most": 70,
        "rps": 2.5,
        "burst": 5,
        "tpm": 1000,
        "limits": {"calls": 4},
    }
    found = principal(provider(claims=names), **claims)
    assert found == Principal(
        tenant="acme",
        key="a.example:batch",
        name="a@example.com",
        models=("qwen*", "bge-m3"),
        operations=("/v1/chat/*", "/v1/embeddings"),
        scopes=CALL | {Scope.OBSERVE},
        grants=Grants(rate=2.5, burst=5, tokens_per_minute=1000, max_concurrent=4, priority=100, max_priority=70),
    )


def test_a_path_goes_through_names_that_have_dots_themselves() -> None:
    token = {"kubernetes.io": {"namespace": "team-a", "a.b": {"c": 1}}, "x": {"y": {"z": "deep"}}, "x.y": "flat"}
    for path, value in {
        "kubernetes.io.namespace": "team-a",
        "kubernetes.io.a.b.c": 1,
        "x.y": "flat",
        "x.y.z": "deep",
        "kubernetes": None,
        "kubernetes.io.": None,
        ".kubernetes.io": None,
        "x.y.z.w": None,
        "": None,
        ".": None,
    }.items():
        assert claim(token, path) == value, path


@pytest.mark.parametrize(
    ("names", "claims", "said"),
    [
        ({}, {"org": None}, "no claim `org`, which names its tenant"),
        ({}, {"org": 7}, "`org`"),
        ({}, {"org": ""}, "`org`"),
        ({}, {"org": " acme"}, "`org`"),
        ({}, {"org": "a\nb"}, "`org`"),
        ({}, {"org": "a" * 257}, "`org`"),
        ({}, {"org": "corp-a/bob"}, "`org` names no tenant: .*'/'"),  # else it had the limits of corp-a's user bob
        ({}, {"sub": None}, "no claim `sub`"),
        ({}, {"sub": ["alice"]}, "`sub`"),
        # To read any of these as "all models" would open what the claim closes.
        *(({"models": "m"}, {"m": value}, "`m`") for value in (None, [], "", 7, [7], [""], {"a": 1}, ["m"] * 257)),
        ({"operations": "o"}, {"o": []}, "`o`"),
        *(({"priority": "p"}, {"p": value}, "`p`") for value in ("urgent", 101, -1, True, 1.5, [])),
        *(({"rate": "r"}, {"r": value}, "`r`") for value in (0, -1, "7", True, float("nan"), float("inf"), [1])),
        *(({"burst": "b"}, {"b": value}, "`b`") for value in (0, 1.5, "1", True, 10**10)),
    ],
)
def test_a_claim_that_is_missing_or_malformed_is_a_refusal(names: dict[str, str], claims: dict[str, Any], said: str) -> None:
    with pytest.raises(Unauthenticated, match=said):
        principal(provider(claims={"tenant": "org"} | names), **claims)


def test_a_scope_claim_that_is_missing_grants_nothing() -> None:
    found = principal(provider(claims={"tenant": "org", "scopes": "scope"}))
    assert found.scopes == {Scope.OPEN, Scope.KNOWN}
    odd = principal(provider(claims={"tenant": "org", "scopes": "scope"}), scope=[["lexora:admin"], 7, "admin"])
    assert odd.scopes == {Scope.OPEN, Scope.KNOWN}


def test_words_of_the_scope_claim_are_mapped_by_configuration() -> None:
    mapped = provider(claims={"tenant": "org", "scopes": "groups"}, scopes={"ops": ["observe", "admin"], "users": "call"})
    assert principal(mapped, groups=["users", "ops", "others"]).scopes == CALL | {Scope.OBSERVE, Scope.ADMIN}
    assert principal(mapped, groups="lexora:admin").scopes == {Scope.OPEN, Scope.KNOWN}


def test_the_first_rule_that_fits_goes_before_the_claims() -> None:
    rules = [
        {"when": {"groups": "ops", "env": "prod"}, "scopes": ["admin"], "tenant": "platform", "models": "*"},
        {"when": {"groups": "batch"}, "models": ["qwen*"], "operations": "/v1/*", "max_priority": "low", "rate": 1.0},
        {"when": {"groups": "batch"}, "models": ["never"]},
    ]
    ruled = provider(claims={"tenant": "org", "models": "models", "rate": "rps"}, rules=rules)
    claims = {"models": ["bge-m3"], "rps": 9}
    operator = principal(ruled, groups=["ops"], env="prod", **claims)
    assert (operator.tenant, operator.models, Scope.ADMIN in operator.scopes) == ("platform", ("*",), True)
    assert Scope.CALL not in operator.scopes
    batch = principal(ruled, groups=["users", "batch"], **claims)
    assert (batch.tenant, batch.models, batch.operations) == ("acme", ("qwen*",), ("/v1/*",))
    assert batch.grants == Grants(rate=1.0, max_priority=0)
    other = principal(ruled, groups=["ops"], **claims)
    assert (other.models, other.grants.rate) == (("bge-m3",), 9)


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("groups", "llm-ops", True),
        ("groups", ["users", "llm-ops"], True),
        ("groups", "users llm-ops", False),
        ("title", "not in llm-ops", False),  # which its user may have written
        ("realm.scope", "a llm-ops", False),
        ("scope", "openid llm-ops", True),
        ("scp", "openid llm-ops", True),
        ("scope", "llm-ops", True),
        ("scope", "no-llm-ops", False),
    ],
)
def test_a_text_is_one_value_but_for_scopes(name: str, value: Any, fits: bool) -> None:
    ruled = provider(rules=[{"when": {name: "llm-ops"}, "scopes": ["admin"]}])
    inner = {"realm": {"scope": value}} if name == "realm.scope" else {name: value}
    assert (Scope.ADMIN in principal(ruled, **inner).scopes) == fits


def test_an_issuer_speaks_for_its_own_tenants_only() -> None:
    limited = provider(tenants=["acme", "acme-*"])
    assert principal(limited, org="acme-eu").tenant == "acme-eu"
    with pytest.raises(Unauthenticated, match="does not speak for"):
        principal(limited, org="acme2")
    assert principal(provider(tenant="all", claims={}), org=None).tenant == "all"


@given(
    st.dictionaries(
        st.sampled_from(["sub", "org", "m", "s", "p", "r"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=9)
        | st.lists(st.text(max_size=5), max_size=3),
    )
)
def test_any_claims_give_a_principal_with_a_tenant_and_bounds_or_a_refusal(claims: dict[str, Any]) -> None:
    names = {"tenant": "org", "models": "m", "scopes": "s", "priority": "p", "rate": "r"}
    try:
        found = principal_of(claims, provider(claims=names))
    except Unauthenticated:
        return
    assert found.tenant
    assert found.key.startswith("a.example:")
    assert found.models
    assert Scope.ADMIN not in found.scopes
