from typing import Any

import pytest

from lexora.client import Settings
from lexora_router.config.env import apply
from lexora_router.config.positions import Tree, read_map

FILE = """
server: {port: 1}
routing:
  aliases: {"Fast-One": m}
  backends:
    openai-backup: {url: "http://file", api_key_env: FILE_KEY}
    fleet: {urls: ["http://a", "http://b"]}
"""


def laid(text: str = "", /, **environ: str) -> Tree:
    tree = read_map(text, "f.yaml")
    apply(environ, tree)
    return tree


def problem(text: str = "", /, **environ: str) -> str:
    (only,) = laid(text, **environ).problems
    return str(only)


def test_variables_win_over_the_file_and_are_remembered() -> None:
    tree = laid(FILE, LEXORA_SERVER__PORT="2")
    assert tree.data["server"] == {"port": 2}
    assert str(tree.where(("server", "port"))) == "LEXORA_SERVER__PORT"


@pytest.mark.parametrize(
    ("variable", "text", "path", "value"),
    [
        ("LEXORA_VLLM__URL", "http://e:1", ("vllm", "url"), "http://e:1"),
        ("LEXORA_VLLM__TIMEOUT", "30", ("vllm", "timeout"), 30.0),
        ("LEXORA_VLLM__CONNECT_TIMEOUT", "2.5", ("vllm", "connect_timeout"), 2.5),
        ("LEXORA_SERVER__HOST", "127.0.0.1", ("server", "host"), "127.0.0.1"),
        ("LEXORA_SERVER__PORT", "9000", ("server", "port"), 9000),
        ("LEXORA_RATE_LIMIT__ENABLED", "off", ("rate_limit", "enabled"), False),
        ("LEXORA_RATE_LIMIT__DEFAULT_RATE", "3", ("rate_limit", "default_rate"), 3.0),
        ("LEXORA_RATE_LIMIT__DEFAULT_BURST", "4", ("rate_limit", "default_burst"), 4),
        ("LEXORA_RETRY__MAX_RETRIES", "5", ("retry", "max_retries"), 5),
        ("LEXORA_RETRY__BASE_DELAY", "0.5", ("retry", "base_delay"), 0.5),
        ("LEXORA_RETRY__RESPECT_RETRY_AFTER", "No", ("retry", "respect_retry_after"), False),
        ("LEXORA_RETRY__MAX_RETRY_AFTER", "7", ("retry", "max_retry_after"), 7.0),
        ("LEXORA_FALLBACK__ENABLED", "1", ("fallback", "enabled"), True),
        ("LEXORA_FALLBACK__ON_RATE_LIMIT", "0", ("fallback", "on_rate_limit"), False),
        ("LEXORA_LOGGING__LEVEL", "debug", ("logging", "level"), "debug"),
        ("LEXORA_LOGGING__FORMAT", "json", ("logging", "format"), "json"),
        ("LEXORA_ROUTING__BACKENDS__MAIN__URL", "http://m", ("routing", "backends", "main", "url"), "http://m"),
        ("LEXORA_ROUTING__BACKENDS__MAIN__AZURE__API", "v1", ("routing", "backends", "main", "azure", "api"), "v1"),
        ("LEXORA_ROUTING__ALIASES__FAST", "m", ("routing", "aliases", "fast"), "m"),
        ("LEXORA_FAILOVER__RESUME", "Text", ("failover", "resume"), "text"),
        ("LEXORA_FAILOVER__RESUME", "on", ("failover", "resume"), True),
        ("LEXORA_TENANTS__BATCH__PRIORITY", "LOW", ("tenants", "batch", "priority"), "low"),
        ("LEXORA_TENANTS__BATCH__PRIORITY", "70", ("tenants", "batch", "priority"), 70),
        ("LEXORA_RATE_LIMIT__TIERS__GOLD__RATE", "9", ("rate_limit", "tiers", "gold", "rate"), 9.0),
        ("LEXORA_ROUTING__BACKENDS__A__QUEUE__AGING", "5", ("routing", "backends", "a", "queue", "aging"), 5.0),
        ("LEXORA_RATE_LIMIT__TOKENS_PER_MINUTE", "null", ("rate_limit", "tokens_per_minute"), None),
    ],
)
def test_every_kind_of_key(variable: str, text: str, path: tuple[str, ...], value: object) -> None:
    tree = laid(**{variable: text})
    assert tree.problems == []
    found: object = tree.data
    for key in path:
        assert isinstance(found, dict)
        found = found[key]
    assert found == value
    assert type(found) is type(value)


def test_names_of_the_file_match_in_any_case_and_with_underscores() -> None:
    tree = laid(
        FILE,
        LEXORA_ROUTING__BACKENDS__OPENAI_BACKUP__URL="http://env",
        LEXORA_ROUTING__ALIASES__FAST_ONE="n",
    )
    assert tree.data["routing"]["backends"]["openai-backup"]["url"] == "http://env"
    assert tree.data["routing"]["aliases"] == {"Fast-One": "n"}


def test_a_variable_that_could_mean_two_names_is_a_problem() -> None:
    text = 'routing: {backends: {a-b: {url: "http://a"}, a_b: {url: "http://b"}}}'
    assert "could mean a-b or a_b" in problem(text, LEXORA_ROUTING__BACKENDS__A_B__URL="http://c")


def test_lists_and_maps_are_yaml() -> None:
    tree = laid(
        FILE,
        LEXORA_ROUTING__BACKENDS__FLEET__URLS="[http://c, http://d]",
        LEXORA_ROUTING__BACKENDS__FLEET__MODELS="[m, {name: n}]",
        LEXORA_ROUTING__ALIASES="{other: m}",
        LEXORA_ROUTING__BACKENDS__NEW='{url: "http://new"}',
    )
    assert tree.problems == []
    assert tree.data["routing"]["backends"]["fleet"] == {"urls": ["http://c", "http://d"], "models": ["m", {"name": "n"}]}
    assert tree.data["routing"]["aliases"] == {"Fast-One": "m", "other": "m"}
    assert tree.data["routing"]["backends"]["new"] == {"url": "http://new"}
    assert str(tree.where(("routing", "backends", "new", "url"))) == "LEXORA_ROUTING__BACKENDS__NEW"


def test_a_single_key_wins_over_a_whole_map() -> None:
    tree = laid(LEXORA_SERVER__PORT="2", LEXORA_SERVER='{port: 1, host: "::"}')
    assert tree.data["server"] == {"port": 2, "host": "::"}


def test_url_replaces_the_urls_of_the_file_and_the_other_way_round() -> None:
    tree = laid(
        FILE,
        LEXORA_ROUTING__BACKENDS__FLEET__URL="http://c",
        LEXORA_ROUTING__BACKENDS__OPENAI_BACKUP='{urls: ["http://d"], api_key: k}',
    )
    assert tree.data["routing"]["backends"] == {
        "openai-backup": {"urls": ["http://d"], "api_key": "k"},
        "fleet": {"url": "http://c"},
    }


def test_url_and_urls_both_from_the_environment_stay_a_contradiction() -> None:
    assert set(laid(LEXORA_VLLM__URL="http://a", LEXORA_VLLM__URLS="[http://b]").data["vllm"]) == {"url", "urls"}


def test_an_empty_variable_is_unset() -> None:
    assert laid(FILE, LEXORA_SERVER__PORT="", LEXORA_VLLM__URL=" ") == laid(FILE)


def test_unprefixed_variables_change_nothing() -> None:
    others = {"PORT": "1", "API_KEY": "k", "SERVER__PORT": "2", "lexora_server__port": "3", "LEXORA_CONFIG": "x"}
    assert laid(FILE, **others) == laid(FILE)


def test_the_variables_of_a_kubernetes_service_are_left_alone() -> None:
    links = {
        "LEXORA_SERVICE_HOST": "10.0.0.1",
        "LEXORA_SERVICE_PORT": "8001",
        "LEXORA_SERVICE_PORT_HTTP": "8001",
        "LEXORA_PORT": "tcp://10.0.0.1:8001",
        "LEXORA_PORT_8001_TCP": "tcp://10.0.0.1:8001",
        "LEXORA_PORT_8001_TCP_ADDR": "10.0.0.1",
        "LEXORA_ROUTER_SERVICE_HOST": "10.0.0.2",
    }
    assert laid(FILE, **links) == laid(FILE)


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("LEXORA_PORT", "LEXORA_SERVER__PORT"),
        ("LEXORA_SERVER_PORT", "LEXORA_SERVER__PORT"),
        ("LEXORA_SERVER__PROT", "LEXORA_SERVER__PORT"),
        ("LEXORA_SEVER__PORT", "LEXORA_SERVER__PORT"),
        ("LEXORA_ROUTING__BACKENDS__MAIN__TIEMOUT", "LEXORA_ROUTING__BACKENDS__MAIN__TIMEOUT"),
        ("LEXORA_ROUTING__BACKEND__MAIN__URL", "LEXORA_ROUTING__BACKENDS__MAIN__URL"),
    ],
)
def test_unknown_variables_are_problems_with_a_hint(variable: str, hint: str) -> None:
    text = problem(**{variable: "8001"})
    assert text.startswith(f"{variable}: unknown key ")
    assert text.endswith(f", did you mean {hint}?")


@pytest.mark.parametrize(
    "variable", ["LEXORA_", "LEXORA___", "LEXORA_ZZZ", "LEXORA_SERVER__PORT__X", "LEXORA_ROUTING__BACKENDS____URL"]
)
def test_unknown_variables_without_a_hint(variable: str) -> None:
    assert problem(**{variable: "1"}).startswith(f"{variable}: unknown key")


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("LEXORA_SERVER__PORT", "server.port: must be a whole number"),
        ("LEXORA_VLLM__TIMEOUT", "vllm.timeout: must be a number"),
        ("LEXORA_RETRY__RESPECT_RETRY_AFTER", "retry.respect_retry_after: must be true or false"),
        ("LEXORA_FAILOVER__RESUME", "failover.resume: must be true or false (or 1, 0, yes, no, on, off, or text)"),
        ("LEXORA_TENANTS__A__PRIORITY", "tenants.a.priority: must be a whole number, or high, or normal, or low"),
        ("LEXORA_VLLM__URLS", "vllm.urls: must be written as a YAML list: [a, b]"),
        ("LEXORA_SERVER", "server: must be written as a YAML map: {a: b}"),
        ("LEXORA_VLLM__URLS__0", "vllm.urls: a list is set as a whole, as YAML: [a, b]"),
    ],
)
def test_bad_values_are_problems_that_do_not_repeat_them(variable: str, message: str) -> None:
    text = problem(**{variable: "sk-secret"})
    assert text.startswith(f"{variable}: {message}")
    assert "sk-secret" not in text


def test_a_section_of_the_wrong_type_in_the_file_is_left_to_its_own_report() -> None:
    assert laid("server: 5\n", LEXORA_SERVER__PORT="2").data == {"server": 5}


def test_variables_of_clients_are_no_keys() -> None:
    read: list[str] = []

    class Environ(dict[str, str]):
        def get(self, name: str, default: Any = None) -> Any:
            read.append(name)
            return super().get(name, default)

    Settings.from_env(Environ())
    assert len(read) > 4
    assert not laid(FILE, **dict.fromkeys([*read, "LEXORA_CA", "LEXORA_CERT", "LEXORA_KEY"], "x")).problems
