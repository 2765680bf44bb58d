import pytest

from lexora_contract.access import Scope, certificate_names
from lexora_router.access.certificates import MAX_REMEMBERED, CertificateNames
from lexora_router.config.auth import AuthConfig

AUTH = AuthConfig.model_validate(
    {
        "certificates": {
            "spiffe://fleet/*": {"tenant": "fleet", "priority": "high", "max_priority": 70, "burst": 3},
            "spiffe://fleet/a": {"tenant": "a", "scopes": ["observe"]},
            "*.Internal": {"tenant": "internal"},
            "ops?@example.com": {"tenant": "ops"},
        }
    }
)


def tenant(*names: str) -> str | None:
    found = CertificateNames(AUTH.certificates).get(names)
    return found and found.tenant


def test_a_whole_name_goes_before_patterns() -> None:
    assert tenant("spiffe://fleet/a") == "a"
    assert tenant("spiffe://fleet/b") == "fleet"
    assert tenant("x.internal", "spiffe://fleet/a") == "a"
    assert tenant("x.internal", "spiffe://fleet/b") == "fleet", "patterns in the order of the file"
    assert tenant("ops1@example.com") == "ops"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "internal",
        "x.internal.evil",
        "spiffe://other/a",
        "x spiffe://fleet/a",
        "ops@example.com",
        "ops12@example.com",
        "eve@x.internal",
        "any://x.internal",
    ],
)
def test_other_names_are_nobodys(name: str) -> None:
    assert tenant(name) is None


def test_a_pattern_without_a_letter_is_for_names_of_all_kinds() -> None:
    everybody = CertificateNames(AuthConfig.model_validate({"certificates": {"*": {"tenant": "all"}}}).certificates)
    assert all(everybody.get((name,)) for name in ("x.internal", "eve@x.internal", "any://x.internal"))


def test_what_a_rule_grants() -> None:
    found = CertificateNames(AUTH.certificates)
    fleet, observer = found.get(("spiffe://fleet/b",)), found.get(("spiffe://fleet/a",))
    assert fleet is not None
    assert observer is not None
    assert (fleet.key, fleet.name) == ("spiffe://fleet/b", "spiffe://fleet/*")
    assert (fleet.grants.priority, fleet.grants.max_priority, fleet.grants.burst, fleet.grants.rate) == (100, 70, 3, None)
    assert fleet.scopes == {Scope.KNOWN, Scope.CALL}
    assert observer.scopes == {Scope.KNOWN, Scope.OBSERVE}


def test_what_is_remembered_is_bounded() -> None:
    found = CertificateNames(AUTH.certificates)
    for number in range(MAX_REMEMBERED + 10):
        found.get((f"{number}.internal",))
    assert len(found._found) == MAX_REMEMBERED


def test_each_name_looks_like_its_kind() -> None:
    names = certificate_names(
        ["A.Internal", "spiffe://fleet/a", "ops@example.com", "a/b", "a:b"],
        ["spiffe://fleet/A", "a.internal", "ops@example.com"],
        ["ops@example.com", "a.internal", "x://y@z"],
    )
    assert names == ("spiffe://fleet/A", "a.internal", "ops@example.com")
