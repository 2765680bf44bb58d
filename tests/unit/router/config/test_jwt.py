from pathlib import Path
from typing import Any

import pytest
import yaml

from lexora_router.config.load import ConfigError, load

ISSUER = {"issuer": "https://a.example/", "audience": "x", "discovery": True, "claims": {"tenant": "org"}}


def problems(tmp_path: Path, *providers: dict[str, Any], mode: str = "jwt") -> list[str]:
    file = tmp_path / "c.yaml"
    given = [{name: value for name, value in provider.items() if value is not None} for provider in providers]
    file.write_text(yaml.safe_dump({"auth": {"mode": mode, "jwt": given}}))
    try:
        load(str(file), {})
    except ConfigError as error:
        return [str(problem).partition(": ")[2] for problem in error.problems]
    return []


def test_a_mode_with_tokens_needs_an_issuer(tmp_path: Path) -> None:
    assert problems(tmp_path) == ["auth.jwt: is needed by this mode: name an issuer of tokens"]
    assert problems(tmp_path, mode="keys") == []
    assert problems(tmp_path, ISSUER, mode="keys+jwt") == []


@pytest.mark.parametrize("alike", ["https://a.example/", "https://a.example", "https://A.example/"])
def test_two_issuers_alike_are_refused(tmp_path: Path, alike: str) -> None:
    (found,) = problems(tmp_path, ISSUER, ISSUER | {"issuer": alike, "name": "b"})
    assert found.startswith("auth.jwt[1].issuer: two providers have this issuer")


def test_two_names_alike_are_refused(tmp_path: Path) -> None:
    for other in (
        ISSUER | {"issuer": "https://b.example/", "name": "a.example"},
        ISSUER | {"issuer": "https://a.example/realm"},
    ):
        (found,) = problems(tmp_path, ISSUER, other)
        assert found.startswith("auth.jwt[1].name: two providers have this name")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"discovery": None}, "auth.jwt[0]: needs one of jwks_url, jwks_file and discovery"),
        ({"jwks_file": "x"}, "auth.jwt[0]: needs one of"),
        ({"discovery": None, "jwks_url": "http://a.example/k"}, "auth.jwt[0].jwks_url: must begin with https://"),
        ({"issuer": "http://a.example"}, "auth.jwt[0].issuer: must begin with https://"),
        ({"issuer": "corp"}, "auth.jwt[0].issuer: must begin with https:// and a host (needed by discovery)"),
        ({"discovery": None, "jwks_url": "https://user:secret@a.example/k"}, "auth.jwt[0].jwks_url: must not contain a user"),
        ({"discovery": None, "jwks_url": "file:///etc/passwd"}, "auth.jwt[0].jwks_url: must begin with https://"),
        ({"claims": None}, "auth.jwt[0].claims.tenant: is needed, or tenant"),
        ({"audience": []}, "auth.jwt[0].audience: must not be empty"),
        ({"algorithms": ["HS256"]}, "auth.jwt[0].algorithms[0]: must be"),
        ({"algorithms": ["none"]}, "auth.jwt[0].algorithms[0]: must be"),
        ({"rules": [{"when": {}}]}, "auth.jwt[0].rules[0].when: must not be empty"),
        ({"rules": [{"when": {"a": "b"}, "scopes": ["root"]}]}, "auth.jwt[0].rules[0].scopes[0]: must be"),
        ({"rules": [{"when": {"a": "b"}, "models": []}]}, "auth.jwt[0].rules[0].models: must not be empty"),
        ({"name": "a:b"}, "auth.jwt[0].name: is 1 to 64 letters"),
        ({"leeway": 3600}, "auth.jwt[0].leeway: must be"),
    ],
)
def test_what_is_wrong_is_said_at_its_key_and_never_repeated(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    found = problems(tmp_path, ISSUER | settings)
    assert any(each.startswith(said) for each in found), found
    assert "secret" not in str(found)


def test_what_is_allowed_and_probably_not_meant_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    clear = ISSUER | {"issuer": "http://a.example", "allow_http": True}
    absent = ISSUER | {"issuer": "https://b.example", "discovery": False, "jwks_file": str(tmp_path / "none.json")}
    file.write_text(yaml.safe_dump({"auth": {"mode": "jwt", "jwt": [clear, absent, ISSUER | {"issuer": "https://c.example"}]}}))
    found = load(str(file), {}).warnings
    assert ["allow_http" in found[0], "in the clear" in found[0], "jwks_file: cannot be read now" in found[1]] == [True] * 3
    assert len(found) == 2
    file.write_text(yaml.safe_dump({"admin": {"allow": ["127.0.0.1"]}}))
    (found_off,) = load(str(file), {}).warnings
    assert "admin.allow: has no effect" in found_off


@pytest.mark.parametrize("tenant", ["acme/vip", "t" * 257])
def test_a_tenant_of_credentials_is_no_user_of_another(tmp_path: Path, tenant: str) -> None:
    rule = {"when": {"groups": "g"}, "tenant": tenant}
    for provider in (ISSUER | {"tenant": tenant}, ISSUER | {"rules": [rule]}):
        (found,) = problems(tmp_path, provider)
        assert "a tenant's name" in found
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({"auth": {"mode": "keys", "certificates": {"a.example": {"tenant": tenant}}}}))
    with pytest.raises(ConfigError, match="a tenant's name"):
        load(str(file), {})


def test_operations_of_rules_and_certificates_are_paths(tmp_path: Path) -> None:
    rule = {"when": {"groups": "g"}, "operations": ["/v1/*", "chat"]}
    (found,) = problems(tmp_path, ISSUER | {"rules": [rule]})
    assert found.startswith("auth.jwt[0].rules[0].operations[1]: ")
    assert "operations are paths" in found
    file = tmp_path / "c.yaml"
    certificates = {"a.example": {"tenant": "t", "operations": ["embeddings"]}}
    file.write_text(yaml.safe_dump({"auth": {"mode": "keys", "certificates": certificates}}))
    with pytest.raises(ConfigError, match=r"operations are paths, .*'embeddings'"):
        load(str(file), {})


def test_settings_of_a_tenant_that_no_credentials_make_are_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    for mode, warned in (("keys", True), ("off", False)):
        file.write_text(yaml.safe_dump({"auth": {"mode": mode}, "tenants": {"acme/vip": {"weight": 2}}}))
        assert any("no tenant has a '/'" in line for line in load(str(file), {}).warnings) == warned
