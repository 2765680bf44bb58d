from typing import Any

import pytest
from yarl import URL

from lexora_router.adapters import Adapter
from lexora_router.config import BackendConfig
from lexora_router.errors import InvalidRequest

HOST = URL("https://h.example")
CHAT = "/v1/chat/completions"


def adapter(**fields: Any) -> Adapter:
    return BackendConfig.model_validate({"url": str(HOST)} | fields).adapter()


def azure(api: str = "deployments", version: str | None = "2024-10-21") -> Adapter:
    fields = {"api": api} | ({"api_version": version} if version else {})
    return adapter(type="openai_compatible", azure=fields, api_key="az-key")


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://e:8000", "http://e:8000/v1/chat/completions"),
        ("http://e:8000/", "http://e:8000/v1/chat/completions"),
        ("http://e:8000/a/b", "http://e:8000/a/b/v1/chat/completions"),
    ],
)
def test_the_path_follows_the_base(base: str, url: str) -> None:
    assert str(adapter().url(URL(base), CHAT, "m")) == url


def test_a_bearer_key_or_none() -> None:
    assert adapter(api_key="sk").headers() == {"authorization": "Bearer sk"}
    assert adapter().headers() == {}


def test_a_vllm_has_a_health_path_and_others_only_if_configured() -> None:
    assert str(adapter().health_url(HOST)) == "https://h.example/health"
    assert adapter(type="openai_compatible").health_url(HOST) is None
    assert str(adapter(type="openai_compatible", health_path="/ping").health_url(HOST)) == "https://h.example/ping"


def test_models_are_listed_where_openai_lists_them() -> None:
    assert str(adapter().models_url(HOST)) == "https://h.example/v1/models"


def test_azure_deployments() -> None:
    assert str(azure().url(HOST, CHAT, "my-gpt")) == (
        "https://h.example/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"
    )
    assert str(azure().models_url(HOST)) == "https://h.example/openai/models?api-version=2024-10-21"
    assert azure().headers() == {"api-key": "az-key"}
    assert azure().health_url(HOST) is None


def test_azure_v1() -> None:
    assert str(azure("v1", None).url(HOST, CHAT, "my-gpt")) == "https://h.example/openai/v1/chat/completions"
    assert (
        str(azure("v1", "preview").url(HOST, CHAT, "m")) == "https://h.example/openai/v1/chat/completions?api-version=preview"
    )
    assert str(azure("v1", None).models_url(HOST)) == "https://h.example/openai/v1/models"


@pytest.mark.parametrize("model", ["../../admin", "a/b", "/x", "a?b=c#d", "%2e%2e", "日本", "a b"])
def test_a_model_stays_one_segment_of_the_path(model: str) -> None:
    url = azure().url(HOST, CHAT, model)
    segments = url.raw_path.split("/")
    assert segments[:3] + segments[4:] == ["", "openai", "deployments", "chat", "completions"]
    assert url.query_string == "api-version=2024-10-21"


@pytest.mark.parametrize("model", ["", ".", ".."])
def test_a_model_that_cannot_be_a_segment_is_refused(model: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        azure().url(HOST, CHAT, model)
    assert raised.value.param == "model"
