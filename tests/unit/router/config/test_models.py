import pytest
from pydantic import SecretStr, ValidationError

from lexora_router.config import (
    AzureConfig,
    BackendConfig,
    Config,
    FailoverConfig,
    LoggingConfig,
    ModelEntry,
    QueueConfig,
    TenantConfig,
    VllmConfig,
)
from lexora_router.config.models import CorsConfig

KEY = "sk-very-secret"


def routed(**routing: object) -> Config:
    return Config.model_validate({"routing": routing})


def test_the_defaults_are_one_vllm_at_localhost() -> None:
    config = Config()
    assert config.single_backend
    assert list(config.backends()) == ["vllm"]
    assert config.backends()["vllm"].endpoints == ("http://localhost:8000",)
    assert config.backends()["vllm"].health_path == "/health"
    assert config.default_backend() == "vllm"
    assert config.default_model() is None
    assert (config.server.port, config.server.grpc_port, config.server.max_body_bytes) == (8001, 50051, 33554432)


def test_single_backend_mode_takes_over_every_key_of_vllm() -> None:
    config = Config(vllm=VllmConfig(url="http://a:1", timeout=7, idle_timeout=3, total_timeout=9, api_key=SecretStr(KEY)))
    backend = config.backends()["vllm"]
    assert (backend.timeout, backend.idle, backend.first_token, backend.total_timeout) == (7, 3, 7, 9)
    assert backend.resolve_key({}) == KEY


def test_urls_replace_the_default_url_of_vllm() -> None:
    assert Config(vllm=VllmConfig(urls=("http://a", "http://b"))).backends()["vllm"].endpoints == ("http://a", "http://b")


def test_routing_backends_replace_vllm() -> None:
    config = routed(default_backend="b", backends={"a": {"url": "http://a"}, "b": {"url": "http://b", "models": ["m"]}})
    assert not config.single_backend
    assert list(config.backends()) == ["a", "b"]
    assert config.default_backend() == "b"
    assert config.default_model() == "m"


def test_routing_that_is_off_leaves_vllm() -> None:
    config = routed(enabled=False, backends={"a": {"url": "http://a"}})
    assert config.single_backend
    assert list(config.backends()) == ["vllm"]


def test_the_configured_default_model_wins() -> None:
    backends = {"a": {"url": "http://a", "models": ["m"]}}
    config = routed(default_backend="a", default_model_for_unknown_task="x", backends=backends)
    assert config.default_model() == "x"
    assert routed(backends=backends).default_model() is None


@pytest.mark.parametrize("url", ["http://a:1/", "http://a:1/v1", "http://a:1/v1/", "http://a:1"])
def test_addresses_lose_the_slash_and_v1(url: str) -> None:
    assert BackendConfig(url=url).endpoints == ("http://a:1",)


def test_a_path_before_v1_stays() -> None:
    assert BackendConfig(url="https://a/proxy/v1/").endpoints == ("https://a/proxy",)


def test_azure_addresses_lose_openai_too() -> None:
    backend = BackendConfig(type="openai_compatible", url="https://r.azure.com/openai/v1/", azure=AzureConfig(api="v1"))
    assert backend.endpoints == ("https://r.azure.com",)


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:8000", "ftp://a", "http://", "http://a:99999", "http://u:p@a", "http://a b", "http://a?x=1"),
        *("http://[::", "http://a..b", f"http://{'a' * 64}.com"),
    ],
)
def test_bad_addresses_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BackendConfig(url=url)
    assert "u:p" not in str(caught.value)


ORIGINS = {
    *("*", "null", "https://chat.example.com", "http://localhost:3000", "http://localhost:*", "https://*.example.com"),
    *("http://127.0.0.1:8080", "http://[::1]:3000", "app://obsidian.md", "chrome-extension://abcdef"),
}
NO_ORIGINS = {
    *("", "chat.example.com", "https://chat.example.com/", "https://chat.example.com/page", "https://Chat.example.com"),
    *("https://*example.com", "https://*", "https://a*.example.com", "https://a.*.com", "*://a", "https://a:*0", "https://a b"),
}


@pytest.mark.parametrize("origin", sorted(ORIGINS))
def test_origins(origin: str) -> None:
    assert CorsConfig.model_validate({"allow_origins": [origin]}).allow_origins == (origin,)


@pytest.mark.parametrize("origin", sorted(NO_ORIGINS))
def test_what_no_browser_would_send_is_refused(origin: str) -> None:
    with pytest.raises(ValidationError, match="scheme://host"):
        CorsConfig.model_validate({"allow_origins": [origin]})


def test_the_longest_silence_is_the_default_of_both_token_timeouts() -> None:
    backend = BackendConfig(url="http://a", timeout=9)
    assert (backend.first_token, backend.idle) == (9, 9)
    backend = BackendConfig(url="http://a", timeout=9, first_token_timeout=2, idle_timeout=3)
    assert (backend.first_token, backend.idle) == (2, 3)


def test_only_vllm_is_probed_by_default() -> None:
    assert BackendConfig(url="http://a").health_path == "/health"
    assert BackendConfig(url="http://a", health_path=None).health_path is None
    assert BackendConfig(url="http://a", type="openai_compatible").health_path is None
    assert BackendConfig(url="http://a", type="openai_compatible", health_path="/up").health_path == "/up"


def test_the_key_comes_from_the_named_variable_first() -> None:
    backend = BackendConfig(url="http://a", api_key=SecretStr(KEY), api_key_env="MY_KEY")
    assert backend.resolve_key({"MY_KEY": " from-env\n"}) == "from-env"
    assert backend.resolve_key({"MY_KEY": ""}) == KEY
    assert BackendConfig(url="http://a", api_key_env="MY_KEY").resolve_key({}) is None


def test_the_key_is_in_no_representation() -> None:
    config = routed(backends={"a": {"url": "http://a", "api_key": KEY}})
    assert KEY not in repr(config) + str(config) + config.model_dump_json()


def test_models_have_a_short_form() -> None:
    backend = BackendConfig.model_validate({"url": "http://a", "models": ["m", {"name": "n", "capabilities": ["code"]}]})
    assert backend.models == (ModelEntry(name="m"), ModelEntry(name="n", capabilities=("code",)))
    assert backend.models[0].capabilities == ("general",)


def test_levels_of_logging_have_any_case() -> None:
    assert LoggingConfig.model_validate({"level": "debug"}).level == "DEBUG"


def test_only_vllm_has_a_concurrency_limit_by_default() -> None:
    assert BackendConfig(url="http://a").max_concurrency == 64
    assert BackendConfig(url="http://a", max_concurrency=None).max_concurrency is None
    assert BackendConfig(url="http://a", type="openai_compatible").max_concurrency is None
    assert BackendConfig(url="http://a", type="openai_compatible", max_concurrency=3).max_concurrency == 3
    assert Config(vllm=VllmConfig(max_concurrency=None)).backends()["vllm"].max_concurrency is None


def test_single_backend_mode_takes_over_the_concurrency_of_vllm() -> None:
    vllm = VllmConfig(concurrency="auto", min_concurrency=2, max_concurrency=9, scrape_interval=3, scheduling_policy="priority")
    backend = Config(vllm=vllm).backends()["vllm"]
    assert (backend.concurrency, backend.min_concurrency, backend.max_concurrency) == ("auto", 2, 9)
    assert (backend.scrape_interval, backend.scheduling_policy) == (3, "priority")


def test_a_small_limit_needs_no_smaller_minimum_unless_it_adapts() -> None:
    assert BackendConfig(url="http://a", max_concurrency=1).max_concurrency == 1


def test_a_backend_can_override_parts_of_the_queue() -> None:
    queue = QueueConfig(max_size=5, timeout=6, aging=7)
    backend = BackendConfig.model_validate({"url": "http://a", "queue": {"max_size": 0, "aging": None}})
    assert queue.overridden(backend.queue) == QueueConfig(max_size=0, timeout=6, aging=7)
    assert queue.overridden(None) is queue


def test_tenants_that_are_not_listed_have_the_defaults() -> None:
    config = Config.model_validate({"tenants": {"a": {"weight": 2, "priority": "LOW", "max_priority": 70}}})
    assert config.tenants["a"] == TenantConfig(weight=2, priority="low", max_priority=70)
    assert TenantConfig() == TenantConfig(weight=1, priority="normal", max_priority="high", tier=None)


def test_a_tenant_that_may_ask_for_less_than_the_default_needs_no_priority() -> None:
    assert TenantConfig(max_priority="low").priority == "normal"


@pytest.mark.parametrize(("given", "priority"), [("High", "high"), (" low ", "low"), (0, 0), (100, 100), ("070", 70)])
def test_priorities_are_words_or_numbers(given: object, priority: object) -> None:
    assert TenantConfig.model_validate({"priority": given, "max_priority": 100}).priority == priority


@pytest.mark.parametrize("priority", [True, -1, 101, 50.0, "101", "-1", "urgent", "", None, [50], {}])
def test_other_priorities_are_refused(priority: object) -> None:
    with pytest.raises(ValidationError, match="must be one of high, normal, low, or a whole number from 0 to 100"):
        TenantConfig.model_validate({"priority": priority})


def test_resume_is_a_flag_or_text() -> None:
    assert FailoverConfig().resume is False
    assert [FailoverConfig.model_validate({"resume": value}).resume for value in (True, False, "text")] == [True, False, "text"]


def test_the_models_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Config().server.port = 1


@pytest.mark.parametrize(
    "section",
    [
        {"server": {"port": 65536}},
        {"server": {"port": -1}},
        {"server": {"port": True}},
        {"server": {"max_body_bytes": 0}},
        {"server": {"unknown": 1}},
        {"vllm": {"timeout": 0}},
        {"vllm": {"timeout": float("inf")}},
        {"vllm": {"timeout": float("nan")}},
        {"vllm": {"timeout": 1e9}},
        {"vllm": {"url": "http://a", "urls": ["http://b"]}},
        {"vllm": {"url": None}},
        {"vllm": {"urls": ["http://a", "http://a/v1/"]}},
        {"vllm": {"api_key": "two words"}},
        {"vllm": {"api_key_env": "sk-this-is-a-key"}},
        {"retry": {"max_retries": -1}},
        {"retry": {"exponential_base": 0.5}},
        {"rate_limit": {"default_rate": 0}},
        {"retry": {"base_delay": 2, "max_delay": 1}},
        {"retry": {"budget": 1.5}},
        {"retry": {"budget_floor": -1}},
        {"rate_limit": {"tiers": {"t": {"rate": 0}}}},
        {"rate_limit": {"tiers": {"t": {"tier": "t"}}}},
        {"rate_limit": {"users": {"u": {"tier": "t"}}}},
        {"tenants": {"a": {"tier": "t"}}},
        {"tenants": {"a": {"weight": 0}}},
        {"tenants": {"a": {"weight": float("nan")}}},
        {"tenants": {"a": {"priority": "high", "max_priority": "low"}}},
        {"tenants": {"a": {"priority": "normal", "max_priority": 49}}},
        {"tenants": {"a": {"priority": 1, "max_priority": "low"}}},
        {"queue": {"aging": 0}},
        {"failover": {"resume": "ids"}},
        {"failover": {"resume": 1}},
        {"health": {"interval": 0}},
        {"health": {"failure_rate": 0}},
        {"health": {"failure_rate": 1.1}},
        {"health": {"max_ejection_percent": 101}},
        {"health": {"open_time": 2, "max_open_time": 1}},
        {"reload": {"interval": 0}},
        {"logging": {"format": "xml"}},
        {"routing": {"default_backend": "nobody"}},
        {"routing": {"aliases": {"a": "a"}}},
        {"routing": {"aliases": {"a": "b", "b": "m"}}},
        {"routing": {"backends": {"a b": {"url": "http://a"}}}},
        {"routing": {"backends": {"a": {}}}},
        {"routing": {"backends": {"a": {"url": "http://a", "fallback_backends": ["b"]}}}},
        {"routing": {"backends": {"a": {"url": "http://a", "fallback_backends": ["a"]}}}},
        {"routing": {"backends": {"a": {"url": "http://a", "models": ["m", "m"]}}}},
        {"routing": {"backends": {"a": {"url": "http://a", "models": [4]}}}},
        {"routing": {"backends": {"a": {"url": "http://a", "health_path": "health"}}}},
        {"routing": {"backends": {"a": {"url": "http://a", "max_concurrency": 0}}}},
        {"routing": {"backends": {"a": {"url": "http://a", "concurrency": "auto", "max_concurrency": 3}}}},
        {"routing": {"backends": {"a": {"url": "http://a", "concurrency": "auto", "max_concurrency": None}}}},
        {"routing": {"backends": {"a": {"url": "http://a", "fallback_backends": ["b", "b"]}, "b": {"url": "http://b"}}}},
        {"routing": {"backends": {"a": {"url": "http://a", "azure": {"api": "v1"}}}}},
        {"routing": {"backends": {"a": {"url": "http://a", "type": "openai_compatible", "azure": {}}}}},
    ],
)
def test_nonsense_is_refused(section: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate(section)
