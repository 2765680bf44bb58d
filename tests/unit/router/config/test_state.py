"""The section of the store."""

import json
from pathlib import Path

import pytest
from tests.support.tls import Authority

from lexora_router.config.load import ConfigError, dump, load

SECRET = "top-secret"


def problems(tmp_path: Path, **state: object) -> list[str]:
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps({"state": state}))
    try:
        load(str(file), {})
    except ConfigError as error:
        return [str(problem).partition(": ")[2] for problem in error.problems]
    return []


def test_a_password_is_shown_nowhere_and_the_variable_wins(tmp_path: Path) -> None:
    url = f"valkeys://joe:{SECRET}@store:6380/2"
    environ = {"LEXORA_STATE__URL": url, "LEXORA_STATE__PASSWORD_ENV": "STORE_PASSWORD", "STORE_PASSWORD": " other\n"}
    loaded = load(None, environ, search=False)
    state = loaded.config.state
    assert "url: valkeys://store:6380/2\n" in dump(loaded.config)
    assert SECRET not in dump(loaded.config) + repr(loaded.config) + str(state.url)
    address = state.address(environ)
    assert address is not None
    assert (address.user, address.password) == ("joe", "other")
    unset = load(None, environ | {"STORE_PASSWORD": ""}, search=False)
    assert any("STORE_PASSWORD is not set" in warning for warning in unset.warnings)
    kept = unset.config.state.address({})
    assert kept is not None
    assert kept.password == SECRET


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"url": f"http://u:{SECRET}@h"}, "state.url: must begin with valkey:// or valkeys:// (TLS), or valkey+sentinel://"),
        ({"url": 5}, "state.url: must be text"),
        ({"timeout": 0}, "state.timeout: "),
        ({"timeout": 30}, "state.timeout: "),
        ({"namespace": "a b"}, "state.namespace: must be 1 to 64 letters"),
        ({"namespace": "{a}"}, "state.namespace: must be 1 to 64 letters"),
        ({"password_env": SECRET}, "state.password_env: must name an environment variable"),
        ({"url": "valkey://h", "tls": {"ca": "x"}}, "state.tls.ca: has no effect: state.url is without TLS"),
        ({"url": "valkeys://h", "tls": {"key": "x"}}, "state.tls.key: needs state.tls.cert"),
        ({"url": "valkeys://h", "tls": {"ca": "/no/such/file"}}, "state.tls.ca: cannot be read: No such file"),
        ({"uri": "valkey://h"}, "state.uri: unknown key, did you mean url?"),
    ],
)
def test_what_cannot_be_used_is_said_at_its_key(tmp_path: Path, state: dict[str, object], said: str) -> None:
    found = problems(tmp_path, **state)
    assert any(line.startswith(said) for line in found), found
    assert SECRET not in str(found)


def test_files_of_tls_are_read_at_the_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own, other = authority.issue("own"), authority.issue("other")
    tls = {"ca": str(authority.ca), "cert": str(own.cert), "key": str(own.key)}
    assert problems(tmp_path, url="valkeys://h", tls=tls) == []
    (said,) = problems(tmp_path, url="valkeys://h", tls=tls | {"key": str(other.key)})
    assert said.startswith("state.tls.key: does not belong to the certificate") or said.startswith("state.tls.cert: ")
