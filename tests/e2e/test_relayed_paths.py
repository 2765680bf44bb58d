"""Endpoints beside the well-known ones reach the engine, and its answer the client."""

from typing import Any

import httpx
import pytest
from anthropic import Anthropic

from tests.e2e.conftest import EMBEDDING_MODEL, MODEL
from tests.support.servers import Gateway, Simulator

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "/v1/chat/completions/render": (CHAT | {"stream": True, "max_tokens": 5}, "token_ids"),
    "/v2/rerank": ({"model": EMBEDDING_MODEL, "query": "a", "documents": ["a", "b"]}, "results"),
    "/v2/embed": ({"model": EMBEDDING_MODEL, "texts": ["a"], "input_type": "search_query"}, "embeddings"),
}


@pytest.mark.parametrize("path", CALLS)
def test_a_path_is_relayed(http: httpx.Client, sim: Simulator, path: str) -> None:
    body, field = CALLS[path]
    answer = http.post(path, json=body)
    assert (answer.status_code, field in answer.json()) == (200, True)
    assert [(post["path"], post["model"]) for post in sim.posts()] == [(path, body["model"])]


def test_each_prompt_of_a_completion_is_rendered(http: httpx.Client) -> None:
    answer = http.post("/v1/completions/render", json={"model": MODEL, "prompt": ["a", "b"]}).json()
    assert [len(each["token_ids"]) > 0 for each in answer] == [True, True]


def test_tokens_of_a_message_are_counted_as_the_message_s_usage_says(gateway: Gateway, http: httpx.Client) -> None:
    with Anthropic(base_url=gateway.http, api_key="none", max_retries=0) as client:
        counted = client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "Hi"}])
        message = client.messages.create(model=MODEL, max_tokens=2, messages=[{"role": "user", "content": "Hi"}])
    assert counted.input_tokens == message.usage.input_tokens > 0


def test_an_engine_that_lacks_a_path_says_so(http: httpx.Client, sim: Simulator) -> None:
    sim.fault("status;code=404", path="/v1/messages/count_tokens")
    answer = http.post("/v1/messages/count_tokens", json=CHAT)
    assert answer.status_code == 404


@pytest.mark.parametrize("path", ["/sleep", "/wake_up", "/collective_rpc", "/pause", "/update_weights", "/invocations"])
def test_what_controls_an_engine_cannot_be_reached(http: httpx.Client, sim: Simulator, path: str) -> None:
    assert http.post(path, json={"model": MODEL}).status_code == 404
    assert sim.posts() == []
