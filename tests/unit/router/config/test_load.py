from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lexora_router.adapters import ADAPTERS, types_where
from lexora_router.config import Config
from lexora_router.config import load as config_load
from lexora_router.config.load import ConfigError, Loaded, dump, load
from lexora_router.config.shape import leaves

EXISTING_FORM = """\
vllm: {url: "http://localhost:8000", timeout: 120.0, connect_timeout: 5.0}
server: {host: "0.0.0.0", port: 8001}
rate_limit: {enabled: true, default_rate: 10.0, default_burst: 20}
retry: {max_retries: 3, base_delay: 1.0, max_delay: 30.0, exponential_base: 2.0, respect_retry_after: true, max_retry_after: 60.0}
fallback: {enabled: true, on_rate_limit: true}
logging: {level: "INFO", format: "console"}        # or json
routing:
  enabled: true
  default_backend: "main"
  default_model_for_unknown_task: "qwen3-32b"
  classifier: {enabled: true, model: "mistral-7b", backend: "secondary"}
  backends:
    main:
      type: "vllm"                                  # default
      url: "http://localhost:8000"                  # or urls: [...]
      timeout: 120.0
      connect_timeout: 5.0
      models:
        - {name: "qwen3-32b", capabilities: ["code", "reasoning", "analysis", "general"], description: "..."}
        - "embedding-model"                         # short form, capabilities ["general"]
      fallback_backends: ["openai_backup"]
    openai_backup:
      type: "openai_compatible"
      url: "https://api.openai.com"
      api_key_env: "OPENAI_API_KEY"
      models: ["gpt-4"]
      model_mapping: {"gpt-4": "gpt-4-0125-preview"}
"""  # noqa: E501 - a line as users have it
SECRET = "sk-4f1e-secret"


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config_load, "SEARCH", (*config_load.SEARCH[:2], tmp_path / "etc" / "config.yaml"))
    return tmp_path


def loaded(text: str, environ: Mapping[str, str] | None = None) -> Loaded:
    Path("c.yaml").write_text(text, encoding="utf-8")
    return load("c.yaml", environ or {})


def problems(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(text, environ)
    assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]
    return str(caught.value).splitlines()


def test_no_file_at_all_is_fine() -> None:
    assert load(None, {}) == Loaded(Config(), None, ())


def test_the_existing_form_loads_unchanged() -> None:
    result = loaded(EXISTING_FORM, {"OPENAI_API_KEY": SECRET})
    backends = result.config.backends()
    assert list(backends) == ["main", "openai_backup"]
    assert backends["main"].models[0].capabilities == ("code", "reasoning", "analysis", "general")
    assert backends["main"].fallback_backends == ("openai_backup",)
    assert backends["openai_backup"].model_mapping == {"gpt-4": "gpt-4-0125-preview"}
    assert backends["openai_backup"].resolve_key({"OPENAI_API_KEY": SECRET}) == SECRET
    assert result.config.default_model() == "qwen3-32b"
    assert result.warnings == (
        "c.yaml:21: routing.backends.main.fallback_backends[0]: openai_backup serves none of the models of main: "
        "give openai_backup fallback_models or model_mapping",
        "c.yaml:2: server.host: any machine that reaches 0.0.0.0 may call and administer: auth.mode is off",
        "c.yaml:11: routing.classifier.backend: there is no backend secondary under routing.backends",
    )


def test_the_search_path(empty_directory: Path) -> None:
    places = ["etc/config.yaml", "lexora_config.yaml", "config/lexora_config.yaml", "variable.yaml", "option.yaml"]
    for port, place in enumerate(places, start=1):
        file = empty_directory / place
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"server: {{port: {port}}}")
        environ = {"LEXORA_CONFIG": "variable.yaml"} if port >= 4 else {}
        result = load("option.yaml" if port == 5 else None, environ)
        assert result.config.server.port == port
        assert result.path is not None
        assert result.path.resolve() == file


@pytest.mark.parametrize(("option", "environ"), [("gone.yaml", {}), (None, {"LEXORA_CONFIG": "gone.yaml"})])
def test_a_named_file_must_be_there(option: str | None, environ: dict[str, str]) -> None:
    Path("lexora_config.yaml").write_text("server: {port: 1}")
    with pytest.raises(ConfigError, match=r"^gone\.yaml: cannot be read: No such file or directory$"):
        load(option, environ)


def test_a_directory_is_no_file() -> None:
    Path("lexora_config.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"^lexora_config\.yaml: cannot be read: Is a directory$"):
        load(None, {})


def test_a_file_that_may_not_be_looked_at_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", denied)
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load(None, {})


def test_defaults_file_environment_in_this_order() -> None:
    text = "server: {port: 1, grpc_port: 2}"
    config = loaded(text, {"LEXORA_SERVER__PORT": "3"}).config
    assert (config.server.host, config.server.grpc_port, config.server.port) == ("127.0.0.1", 2, 3)


def test_a_backend_from_the_environment_alone() -> None:
    config = load(None, {"LEXORA_ROUTING__BACKENDS__MAIN__URL": "http://a/v1"}).config
    assert config.backends()["main"].endpoints == ("http://a",)


def test_sections_with_nothing_under_them_are_the_defaults() -> None:
    text = "server:\nrouting:\n  aliases:\n  backends:\n    a:\n      url: http://a\n      models:\n      model_mapping:\n"
    assert loaded(text).config.backends()["a"].models == ()


def test_every_problem_is_reported_at_once_with_its_place() -> None:
    text = """\
server: {port: "8001"}
port: 1
logging: {level: loud, format: jsn}
routing:
  default_backend: man
  aliases: {a: b, b: m, c: c}
  backends:
    main:
      url: http://localhost:8000
      urls: [http://a, ftp://b]
      tiemout: 5
      timeout: -1
      azure: {}
      timeout: .nan
      models: [{capabilities: []}, 4, q, q]
      fallback_backends: [main, bakup]
    backup: {}
    bad name: {url: http://x:99999}
"""
    found = problems(text, {"LEXORA_SERVER__PROT": "1", "LEXORA_VLLM__TIMEOUT": "0", "LEXORA_RETRY__MAX_RETRIES": "x"})
    assert found == [
        "c.yaml:1: server.port: must be a whole number",
        "c.yaml:2: port: unknown key, did you mean server.port?",
        "c.yaml:3: logging.level: must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL",
        "c.yaml:3: logging.format: must be one of console, json, did you mean json?",
        "c.yaml:5: routing.default_backend: no such backend under routing.backends, did you mean main?",
        "c.yaml:6: routing.aliases.a: must name a model, not another alias",
        "c.yaml:6: routing.aliases.c: an alias cannot name itself",
        "c.yaml:10: routing.backends.main.urls: give url or urls, not both",
        "c.yaml:10: routing.backends.main.urls[1]: must begin with http:// or https://",
        "c.yaml:11: routing.backends.main.tiemout: unknown key, did you mean timeout?",
        "c.yaml:13: routing.backends.main.azure: works only with type azure",
        'c.yaml:13: routing.backends.main.azure: needs api_version, for example "2024-10-21" (only api: v1 works without)',
        "c.yaml:14: routing.backends.main.timeout: duplicate key, it is already on line 12",
        "c.yaml:14: routing.backends.main.timeout: must be a finite number",
        "c.yaml:15: routing.backends.main.models[3]: is listed twice",
        "c.yaml:15: routing.backends.main.models[0].name: is required",
        "c.yaml:15: routing.backends.main.models[1]: must be a model's name (text), or a map with name",
        "c.yaml:16: routing.backends.main.fallback_backends[0]: a backend cannot be its own fallback",
        "c.yaml:16: routing.backends.main.fallback_backends[1]: no such backend under routing.backends, did you mean backup?",
        "c.yaml:17: routing.backends.backup: needs url, or urls for several replicas, or discover to find them",
        "c.yaml:18: routing.backends.bad name: "
        "a backend's name is 1 to 64 letters, digits, '.', '_' or '-', and begins with no sign",
        "c.yaml:18: routing.backends.bad name.url: is not an address: bad host or port",
        "LEXORA_RETRY__MAX_RETRIES: retry.max_retries: must be a whole number",
        "LEXORA_SERVER__PROT: unknown key server.prot, did you mean LEXORA_SERVER__PORT?",
        "LEXORA_VLLM__TIMEOUT: vllm.timeout: must be greater than 0",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vllm: {urls: [http://a, http://a/]}", "c.yaml:1: vllm.urls[1]: is listed twice"),
        ("vllm: {url: null}", "c.yaml:1: vllm: needs url, or urls for several replicas"),
        ("vllm: [1]", "c.yaml:1: vllm: must be a map of keys"),
        ("routing: {backends: [1]}", "c.yaml:1: routing.backends: must be a map: {key: value}"),
        ("routing: {backends: {a: 1}}", "c.yaml:1: routing.backends.a: must be a map of keys"),
        ("routing: {aliases: {a: 4}}",
         "c.yaml:1: routing.aliases.a: must be text; put numbers and words like yes or null in quotes"),
        ("vllm: {urls: http://a}", "c.yaml:1: vllm.urls: must be a list: [a, b]"),
        ("rate_limit: {enabled: 1}", "c.yaml:1: rate_limit.enabled: must be true or false"),
        ("vllm: {timeout: soon}", "c.yaml:1: vllm.timeout: must be a number"),
        ("routing: {backends: {a: {url: http://a, type: vlm}}}",
         f"c.yaml:1: routing.backends.a.type: must be one of {', '.join(ADAPTERS)}, did you mean vllm?"),
        ("server: {port: 70000}", "c.yaml:1: server.port: must be less than or equal to 65535"),
        ("retry: {base_delay: 3, max_delay: 2}", "c.yaml:1: retry.base_delay: must not be above max_delay"),
        ("retry: {base_delay: 31}", "c.yaml:1: retry.base_delay: must not be above max_delay"),
        ("retry: {budget: 20}", "c.yaml:1: retry.budget: must be less than or equal to 1"),
        ("health: {max_open_time: 1}", "c.yaml:1: health.open_time: must not be above max_open_time"),
        ("failover: {resume: txt}", "c.yaml:1: failover.resume: must be true, false or text"),
        ("tenants: {a: {priority: urgent}}",
         "c.yaml:1: tenants.a.priority: must be one of high, normal, low, or a whole number from 0 to 100"),
        ("tenants: {a: {priority: high, max_priority: normal}}",
         "c.yaml:1: tenants.a.priority: must not be above max_priority"),
        ("rate_limit: {tiers: {gold: {}}}\ntenants:\n  a: {tier: gould}",
         "c.yaml:3: tenants.a.tier: no such tier under rate_limit.tiers, did you mean gold?"),
        ("rate_limit: {users: {a: {tier: gold}}}",
         "c.yaml:1: rate_limit.users.a.tier: no such tier under rate_limit.tiers"),
        ("routing: {backends: {a: {url: http://a, concurrency: auto, max_concurrency: 3}}}",
         "c.yaml:1: routing.backends.a.min_concurrency: must not be above max_concurrency"),
        ("routing: {backends: {a: {url: http://a, concurrency: auto, max_concurrency: null}}}",
         "c.yaml:1: routing.backends.a.concurrency: auto needs max_concurrency"),
        ("vllm: {concurrency: auto, max_concurrency: null}", "c.yaml:1: vllm.concurrency: auto needs max_concurrency"),
        ("routing: {backends: {a: {url: http://a, type: openai_compatible, concurrency: auto, max_concurrency: 9}}}",
         f"c.yaml:1: routing.backends.a.concurrency: auto works only with type {types_where('load_metrics')}"),
        ("routing: {backends: {a: {url: http://a, type: openai_compatible, scheduling_policy: priority}}}",
         "c.yaml:1: routing.backends.a.scheduling_policy: priority works only with type "
         + types_where("schedules_by_priority")),
        ("routing: {backends: {a: {url: http://a, queue: {max_sise: 1}}}}",
         "c.yaml:1: routing.backends.a.queue.max_sise: unknown key, did you mean max_size?"),
        ("a: [", "c.yaml:1:5: not valid YAML: expected the node content, but found '<stream end>'"),
    ],
)  # fmt: skip
def test_problems_in_words(text: str, message: str) -> None:
    assert problems(text) == [message]


def test_a_broken_file_does_not_hide_the_problems_of_the_environment() -> None:
    assert problems("a: [", {"LEXORA_PORT": "1"})[1].startswith("LEXORA_PORT: unknown key")


def test_a_file_that_is_not_text_is_refused_with_its_line() -> None:
    Path("c.yaml").write_bytes(b"server:\n  host: \xff\n")
    with pytest.raises(ConfigError, match=r"^c\.yaml:2: not UTF-8 text$"):
        load("c.yaml", {})


def test_a_huge_file_is_refused() -> None:
    assert problems("#" * (2**20 + 1)) == ["c.yaml: larger than 1048576 bytes"]


def test_a_byte_order_mark_is_fine() -> None:
    Path("c.yaml").write_text("server: {port: 1}", encoding="utf-8-sig")
    assert load("c.yaml", {}).config.server.port == 1


@pytest.mark.parametrize(
    "text",
    [
        f"vllm: {{api_key: {SECRET}, port: 1}}",
        f"vllm: {{api_key_env: {SECRET}}}",
        f"vllm: {{api_key: [{SECRET}]}}",
        f"vllm: {{api_key: '{SECRET} {SECRET}'}}",
        f"vllm: {{api_key: !{SECRET} x}}",
        f"vllm: {{api_key: *{SECRET}}}",
        f"vllm: {{url: 'http://user:{SECRET}@host'}}",
        f"server: {{port: {SECRET}}}",
        f"logging: {{level: {SECRET}}}",
        f"routing: {{default_backend: {SECRET}}}",
        f"api_key: {SECRET}",
        f"vllm:\n  api_key: {SECRET}\n bad: 1",
    ],
)
def test_secrets_are_in_no_message(text: str) -> None:
    assert all(SECRET not in problem for problem in problems(text))


@pytest.mark.parametrize("variable", ["LEXORA_VLLM__API_KEY_ENV", "LEXORA_VLLM__TIMEOUT", "LEXORA_VLLM__URLS", "LEXORA_FOO"])
def test_secrets_of_the_environment_are_in_no_message(variable: str) -> None:
    assert all(SECRET not in problem for problem in problems("", {variable: SECRET}))


def test_a_key_that_no_header_can_carry_is_refused() -> None:
    found = problems("vllm: {api_key_env: MY_KEY}", {"MY_KEY": f"{SECRET}\nx: y"})
    assert found == ["c.yaml:1: vllm.api_key_env: the variable's value must be printable ASCII without spaces"]


def test_a_ca_file_that_cannot_be_used_is_refused() -> None:
    Path("c.pem").write_text("hello", encoding="utf-8")
    text = "routing:\n  backends:\n    a: {url: https://a, ca_file: no.pem}\n    b: {url: https://b, ca_file: c.pem}\n"
    assert problems(text) == [
        "c.yaml:3: routing.backends.a.ca_file: cannot be read: No such file or directory",
        "c.yaml:4: routing.backends.b.ca_file: is no PEM file with certificates",
    ]


def test_the_dump_is_complete_masked_and_loads_again() -> None:
    text = f"vllm: {{urls: [http://a], api_key: {SECRET}}}\nrouting: {{backends: {{b: {{url: http://b, api_key: {SECRET}}}}}}}"
    config = loaded(text).config
    shown = dump(config)
    assert SECRET not in shown
    assert shown.count("'********'") == 2
    assert set(yaml.safe_load(shown)) == set(Config.model_fields)
    assert loaded(shown.replace("********", SECRET)).config == config


def test_an_unset_key_is_a_warning() -> None:
    text = "routing:\n  backends:\n    a:\n      url: http://a\n      api_key_env: MY_KEY\n"
    expected = "c.yaml:5: routing.backends.a.api_key_env: MY_KEY is not set in the environment, calls go without a key"
    assert loaded(text).warnings == (expected,)
    assert loaded(text, {"MY_KEY": SECRET}).warnings == ()


def test_the_secret_of_cache_salts_is_long_and_is_never_shown() -> None:
    text = "auth: {mode: keys, cache_salt_secret: %s}"
    long = "a-secret-of-many-letters"
    config = loaded(text % long).config
    assert config.auth.salt_secret() == long.encode()
    assert long not in dump(config) + repr(config)
    assert "auth.cache_salt_secret: must have at least 16 characters" in problems(text % "short")[0]
    assert "short" not in str(problems(text % "short"))
    named = "auth: {mode: keys, cache_salt_secret_env: SALT}\nrate_limit: {enabled: false}\n"
    assert loaded(named, {"SALT": long}).config.auth.salt_secret({"SALT": long}) == long.encode()
    assert "must have at least 16 characters" in problems(named, {"SALT": "short"})[0]
    assert sorted(line.partition(" ")[2] for line in loaded(named).warnings) == [
        "auth.cache_salt_secret_env: SALT is not set in the environment, each process has a secret of its own",
        "rate_limit.enabled: false: the limits of keys and tokens do not hold either",
    ]


def test_an_unset_key_of_the_single_backend_is_a_warning() -> None:
    (warning,) = load(None, {"LEXORA_VLLM__API_KEY_ENV": "MY_KEY", "LEXORA_VLLM__API_KEY": SECRET}).warnings
    assert warning == "LEXORA_VLLM__API_KEY_ENV: vllm.api_key_env: MY_KEY is not set in the environment, api_key is used"


def test_a_model_of_two_backends_and_an_alias_behind_one_are_warnings() -> None:
    text = """\
routing:
  aliases: {m: n}
  backends:
    a: {url: http://a, models: [m]}
    b: {url: http://b, models: [n, m]}
"""
    assert loaded(text).warnings == (
        "c.yaml:5: routing.backends.b.models[1]: m is also a model of a, which gets its calls",
        "c.yaml:2: routing.aliases.m: has no effect: a has a model of this name",
    )


def test_a_fallback_that_serves_none_of_the_models_is_a_warning() -> None:
    text = """\
routing:
  backends:
    a: {url: http://a, models: [m, n], fallback_backends: [%s]}
    other: {url: http://b, models: [x]}
    same: {url: http://b, models: [x, n]}
    mapped: {url: http://b, models: [x], model_mapping: {m: x}}
    named: {url: http://b, models: [x], fallback_models: {m: x}}
    unknown: {url: http://b}
"""
    message = "other serves none of the models of a: give other fallback_models or model_mapping"
    fallback = [text for text in loaded(text % "named, other").warnings if "also a model" not in text]
    assert fallback == [f"c.yaml:3: routing.backends.a.fallback_backends[1]: {message}"]
    assert not [text for text in loaded(text % "same, mapped, named, unknown").warnings if "serves none" in text]


def test_faults_across_keys_are_reported_beside_those_of_keys() -> None:
    text = """\
retry: {base_delay: 3, max_delay: 2, max_retries: -1}
health: {open_time: 3, max_open_time: 2, window: 0}
tenants:
  a: {priority: 60, max_priority: 40, weight: 0, tier: t}
rate_limit: {users: {u: {tier: t, rate: 0}}}
routing:
  backends:
    a: {url: http://a, concurrency: auto, min_concurrency: 9, max_concurrency: 8, timeout: 0, fallback_backends: [b, b]}
    b: {url: http://b, fallback_backends: [a]}
"""
    assert problems(text) == [
        "c.yaml:1: retry.base_delay: must not be above max_delay",
        "c.yaml:1: retry.max_retries: must be greater than or equal to 0",
        "c.yaml:2: health.open_time: must not be above max_open_time",
        "c.yaml:2: health.window: must be greater than 0",
        "c.yaml:4: tenants.a.tier: no such tier under rate_limit.tiers",
        "c.yaml:4: tenants.a.priority: must not be above max_priority",
        "c.yaml:4: tenants.a.weight: must be greater than or equal to 0.001",
        "c.yaml:5: rate_limit.users.u.tier: no such tier under rate_limit.tiers",
        "c.yaml:5: rate_limit.users.u.rate: must be greater than 0",
        "c.yaml:8: routing.backends.a.fallback_backends[1]: is listed twice",
        "c.yaml:8: routing.backends.a.min_concurrency: must not be above max_concurrency",
        "c.yaml:8: routing.backends.a.timeout: must be greater than 0",
    ]


def test_vllm_variables_beside_routing_backends_are_warnings() -> None:
    (warning,) = loaded("routing: {backends: {a: {url: http://a}}}", {"LEXORA_VLLM__URL": "http://b"}).warnings
    assert warning == "LEXORA_VLLM__URL: vllm.url: has no effect: routing.backends is in force"


KEYS = sorted({key for path, _ in leaves() for key in path if key.isidentifier()})
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["http://a", "http://a/", "vllm", "a", ""])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*KEYS, "a", "b"]), inner))
SECTIONS = st.fixed_dictionaries({}, optional=dict.fromkeys(Config.model_fields, VALUES))
BACKENDS = st.dictionaries(st.sampled_from("ab"), st.dictionaries(st.sampled_from(KEYS), VALUES))


def loaded_or_explained(text: str) -> Config | None:
    try:
        return loaded(text).config
    except ConfigError as error:
        if not error.problems:
            raise
        return None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=SECTIONS, backends=BACKENDS)
def test_whatever_the_file_says_it_loads_or_is_explained(data: dict[str, Any], backends: dict[str, Any]) -> None:
    config = loaded_or_explained(yaml.safe_dump({"routing": {"backends": backends}, **data}))
    if config is not None:
        assert all(backend.endpoints for backend in config.backends().values())
        assert yaml.safe_load(dump(config))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="ab:-[]{}&*!<>?|\"'#,%@`~ \n\t0.\\", max_size=60))
def test_whatever_the_text_is_it_loads_or_is_explained(text: str) -> None:
    loaded_or_explained(text)


# -- the classifier


def test_everything_wrong_with_a_classifier_is_told_with_its_line() -> None:
    text = """\
routing:
  classifier:
    enabled: true
    type: [rules, embeding, llm]
    min_confidence: 2
    rules:
      - {capability: "code", patterns: ["(", 'ok']}
      - {capability: "math"}
      - capability: "chat"
        patterns:
          - '(?=a)b'
    embedding: {backend: nowhere, examples: [{text: "a"}]}
"""
    found = problems(text)
    assert found == [
        "c.yaml:2: routing.classifier.model: is needed by type llm",
        "c.yaml:4: routing.classifier.type[1]: must be one of rules, embedding, llm, did you mean embedding?",
        "c.yaml:5: routing.classifier.min_confidence: must be less than or equal to 1",
        "c.yaml:7: routing.classifier.rules[0].patterns[0]: is not a regular expression of RE2: missing ): (",
        "c.yaml:8: routing.classifier.rules[1]: needs words or patterns",
        "c.yaml:11: routing.classifier.rules[2].patterns[0]: is not a regular expression of RE2: invalid perl operator: (?=",
        "c.yaml:12: routing.classifier.embedding.backend: no such backend under routing.backends",
        "c.yaml:12: routing.classifier.embedding.examples[0].capability: is required",
    ]


@pytest.mark.parametrize(
    ("classifier", "lacking"),
    [
        ("{enabled: true}", ["model"]),
        ("{enabled: true, type: rules}", ["rules"]),
        ("{enabled: true, type: [embedding, rules]}", ["rules", "embedding.model", "embedding.examples"]),
        ("{enabled: true, type: [llm, llm], model: m}", ["type[1]"]),
        ("{type: []}", ["type"]),
    ],
)
def test_what_each_type_needs(classifier: str, lacking: list[str]) -> None:
    found = problems(f"routing: {{classifier: {classifier}}}")
    assert sorted(line.split(": ")[1] for line in found) == sorted(f"routing.classifier.{key}" for key in lacking)


def test_a_classifier_that_is_off_may_lack_anything() -> None:
    assert loaded("routing: {classifier: {type: [rules, embedding, llm]}}").warnings == ()


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ("rulez", "type[0]: must be one of rules, embedding, llm, did you mean rules?"),
        ("[]", "type: must not be empty"),
        ("[llm, llm, llm, llm]", "type: must have at most 3 entries"),
    ],
)
def test_what_is_wrong_with_the_types_is_said_once_and_in_our_words(kinds: str, message: str) -> None:
    found = problems(f"routing: {{default_model_for_unknown_task: a, classifier: {{model: a, type: {kinds}}}}}")
    assert f"c.yaml:1: routing.classifier.{message}" in found
    assert not any("should" in problem for problem in found)
    assert len([problem for problem in found if "twice" not in problem]) == 1


def test_a_type_may_be_one_word_in_the_file_and_is_a_list_in_the_environment() -> None:
    text = "routing: {classifier: {type: rules, rules: [{capability: c, words: w, patterns: p}]}}"
    classifier = loaded(text).config.routing.classifier
    assert classifier.type == ("rules",)
    assert (classifier.rules[0].words, classifier.rules[0].patterns) == (("w",), ("p",))
    environ = {"LEXORA_ROUTING__CLASSIFIER__TYPE": "[rules, llm]"}
    assert loaded(text, environ).config.routing.classifier.type == ("rules", "llm")


def test_a_classifier_without_effect_is_a_warning() -> None:
    text = """\
routing:
  classifier:
    enabled: true
    type: [rules]
    rules: [{capability: code, words: a}, {capability: coed, words: b}]
  backends: {a: {url: http://a, models: [{name: m, capabilities: [code]}]}}
"""
    assert loaded(text).warnings == (
        "c.yaml:3: routing.classifier.enabled: needs routing.default_model_for_unknown_task: without it every question is "
        "answered 503",
        "c.yaml:5: routing.classifier.rules[1].capability: no model has the capability coed: this has no effect",
    )
