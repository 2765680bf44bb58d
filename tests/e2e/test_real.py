"""The main job against a real engine: `make test-real ENGINE_URL=http://host:8000 [ENGINE_MODEL=name]`."""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from lexora_router.payload.inspect import inspect_json
from tests.support import wire
from tests.support.keys import add_key
from tests.support.servers import Gateway, calm_config, metric

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

CHAT = "/v1/chat/completions"
HELLO: Any = [{"role": "user", "content": "Tell me about foxes."}]
# Fields that differ from answer to answer, whoever is asked.
VOLATILE = re.compile(
    r'"(id|created|created_at|completed_at|item_id|call_id|timings|system_fingerprint|sequence_number)":("[^"]*"|[\d.]+|\{[^{}]*\}|null)'
)


@pytest.fixture(scope="module")
def engine() -> str:
    url = os.environ.get("ENGINE_URL", "").rstrip("/").removesuffix("/v1")
    if not url:
        pytest.skip("ENGINE_URL is not set: make test-real ENGINE_URL=http://host:8000")
    return url


@pytest.fixture(scope="module")
def direct(engine: str) -> Iterator[httpx.Client]:
    # No connection is kept: servers drop idle ones without a word.
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=engine, timeout=120, limits=limits) as client:
        yield client


@pytest.fixture(scope="module")
def model(direct: httpx.Client) -> str:
    named = os.environ.get("ENGINE_MODEL", "")
    return named or str(direct.get("/v1/models").raise_for_status().json()["data"][0]["id"])


@pytest.fixture(scope="module")
def endless(direct: httpx.Client, model: str) -> dict[str, Any]:
    """What keeps the engine busy for as long as it can be."""
    entry = next(each for each in direct.get("/v1/models").json()["data"] if each["id"] == model)
    length = entry.get("max_model_len")
    return {"max_tokens": length - 100 if length else 100_000, "ignore_eos": True}


@pytest.fixture(scope="module")
def gateway(engine: str, folder: Path) -> Iterator[Gateway]:
    with Gateway(calm_config(main={"url": engine}), folder) as process:
        yield process


@pytest.fixture
def http(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.http, timeout=120) as client:
        yield client
    wire.wait_idle(gateway.http)


@pytest.fixture
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.http}/v1", api_key="-", max_retries=0, timeout=120) as client:
        yield client


def fields(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": HELLO, "max_tokens": 16, "temperature": 0, **more}


def events(text: str) -> list[str]:
    assert text.endswith("\n\n")
    return text.removesuffix("\n\n").split("\n\n")


def test_models(http: httpx.Client, direct: httpx.Client, model: str) -> None:
    mine = {entry["id"]: entry for entry in http.get("/v1/models").json()["data"]}
    theirs = {entry["id"]: entry for entry in direct.get("/v1/models").json()["data"]}
    assert model in mine
    assert mine.keys() == theirs.keys()
    assert mine[model]["backend"] == "main"
    assert mine[model].get("max_model_len") == theirs[model].get("max_model_len")
    assert http.get("/health").json()["status"] == "healthy"


def test_chat(http: httpx.Client, model: str) -> None:
    answer = http.post(CHAT, json=fields(model))
    assert answer.status_code == 200
    assert answer.headers["x-lexora-backend"] == "main"
    body = answer.json()
    assert body["choices"][0]["finish_reason"] in ("stop", "length")
    assert 0 < body["usage"]["completion_tokens"] <= 16


def test_streamed_chat_and_hidden_usage(http: httpx.Client, model: str) -> None:
    before = http.get("/stats").json()
    answer = http.post(CHAT, json=fields(model, stream=True))
    after = http.get("/stats").json()
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = events(answer.text)
    assert found[-1] == "data: [DONE]"
    pieces = [json.loads(event.removeprefix("data: ")) for event in found[:-1]]
    assert all(piece["choices"] for piece in pieces), "the usage chunk is hidden"
    reasons = [piece["choices"][0]["finish_reason"] for piece in pieces]  # what an engine says beside the usage comes last
    assert [reason for reason in reasons if reason] in (["stop"], ["length"])
    assert 0 < after["total_tokens_output"] - before["total_tokens_output"] <= 16
    assert after["total_tokens_input"] > before["total_tokens_input"]


def test_usage_is_shown_to_who_asks(http: httpx.Client, model: str) -> None:
    answer = http.post(CHAT, json=fields(model, stream=True, stream_options={"include_usage": True}))
    usages = [json.loads(event.removeprefix("data: ")).get("usage") for event in events(answer.text)[:-1]]
    assert 0 < next(usage for usage in usages if usage)["completion_tokens"] <= 16


SAME: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": HELLO, "max_tokens": 12, "temperature": 0}),
    "chat stream": (CHAT, {"messages": HELLO, "max_tokens": 12, "temperature": 0, "stream": True}),
    "logprobs": (CHAT, {"messages": HELLO, "max_tokens": 3, "temperature": 0, "logprobs": True, "top_logprobs": 2}),
    "two choices": (CHAT, {"messages": HELLO, "max_tokens": 3, "temperature": 0, "n": 2}),
    "completion": ("/v1/completions", {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}),
    "completion stream": ("/v1/completions", {"prompt": "Once", "max_tokens": 8, "temperature": 0, "stream": True}),
    "embeddings": ("/v1/embeddings", {"input": ["one", "two"]}),
    "tokenize": ("/tokenize", {"prompt": "hello world", "content": "hello world"}),
    "responses": ("/v1/responses", {"input": "Tell me.", "max_output_tokens": 8, "temperature": 0}),
    "responses stream": ("/v1/responses", {"input": "Tell me.", "max_output_tokens": 8, "temperature": 0, "stream": True}),
    "messages": ("/v1/messages", {"messages": HELLO, "max_tokens": 8, "temperature": 0}),
    "messages stream": ("/v1/messages", {"messages": HELLO, "max_tokens": 8, "temperature": 0, "stream": True}),
    "rerank": ("/v1/rerank", {"query": "fox", "documents": ["fox", "dog"]}),
    "too long": (CHAT, {"messages": [{"role": "user", "content": "word " * 200_000}], "max_tokens": 4}),
    "unknown field": (CHAT, {"messages": HELLO, "max_tokens": 4, "temperature": 0, "x_new": {"a": None}}),
    "negative temperature": (CHAT, {"messages": HELLO, "max_tokens": 4, "temperature": -1}),
    "empty messages": (CHAT, {"messages": [], "max_tokens": 4, "temperature": 0}),
    "no choices": (CHAT, {"messages": HELLO, "max_tokens": 4, "n": 0}),
}


@pytest.mark.parametrize("case", SAME)
def test_the_gateways_answer_is_the_engines(http: httpx.Client, direct: httpx.Client, model: str, case: str) -> None:
    path, body = SAME[case]
    body = {"model": model, **body}
    # The same call twice: the engine's prefix cache may make the first one different.
    direct.post(path, json=body)
    theirs, mine = direct.post(path, json=body), http.post(path, json=body)
    if theirs.status_code >= 500 and "application/json" not in theirs.headers.get("content-type", ""):
        pytest.skip(f"the engine itself answers {theirs.status_code} to {path}")
    assert mine.status_code == theirs.status_code
    assert mine.headers["content-type"] == theirs.headers["content-type"]
    if theirs.status_code >= 400:
        assert mine.text == theirs.text
    elif body.get("stream") and path in (CHAT, "/v1/completions"):
        assert texts(mine.text) == texts(theirs.text)
    else:
        assert steady(mine.text) == steady(theirs.text)


def steady(text: str) -> str:
    text = re.sub(r'"(cache_n|cached_tokens|prompt_n|cache_read_input_tokens|input_tokens|obfuscation)":[^,}]*', "", text)
    return re.sub(r"(resp|msg|rs|fc|item|call|chatcmpl|tool)[-_][\w-]+", "ID", VOLATILE.sub("", text))


def texts(text: str) -> list[str]:
    """What each event of a stream says, usage left out; tokens may be grouped differently, so the text is joined."""
    pieces = [json.loads(event.removeprefix("data: ")) for event in events(text)[:-1]]
    choices = [choice for piece in pieces for choice in piece["choices"]]
    said = [choice.get("text") or (choice.get("delta") or {}).get("content") or "" for choice in choices]
    return ["".join(said), str([choice["finish_reason"] for choice in choices if choice["finish_reason"]])]


BAD: dict[str, tuple[bytes, str]] = {
    "malformed": (b'{"model":"m","messages":[', "application/json"),
    "not UTF-8": (b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}', "application/json"),
    "empty": (b"", "application/json"),
    "no model": (b'{"messages":[]}', "application/json"),
    "no messages": (b'{"model":"m"}', "application/json"),
    "wrong type": (b'{"model":"m","messages":[],"max_tokens":"many"}', "application/json"),
    "wrong content type": (b'{"model":"m","messages":[]}', "text/plain"),
    "deep": (b'{"model":"m","messages":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "application/json"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_400(http: httpx.Client, case: str) -> None:
    body, kind = BAD[case]
    answer = http.post(CHAT, content=body, headers={"content-type": kind})
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def running(direct: httpx.Client) -> float | None:
    """Calls that the engine works on, as it says itself; None when it does not."""
    answer = direct.get("/metrics")
    for name in ("vllm:num_requests_running", "llamacpp:requests_processing", "sglang:num_running_reqs"):
        if answer.status_code == 200 and name in answer.text:
            return metric(answer.text, name)
    return None


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_engine(
    gateway: Gateway, direct: httpx.Client, *, model: str, endless: dict[str, Any], stream: bool
) -> None:
    body = json.dumps(fields(model, stream=stream) | endless).encode()
    if running(direct) is None:
        pytest.skip("the engine does not say what is running")
    connections = []
    try:
        for _ in range(2):
            connection = wire.connect(gateway.http)
            connections.append(connection)
            connection.sendall(wire.request(CHAT, body))
            if stream:
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        if not stream:
            time.sleep(0.02)
    finally:
        for connection in connections:
            connection.close()
    wire.wait_until(lambda: running(direct) == 0, "the engine to be free", seconds=10)
    wire.wait_idle(gateway.http)


def test_the_sdk(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=HELLO, max_tokens=12, temperature=0)
    with client.chat.completions.create(model=model, messages=HELLO, max_tokens=12, temperature=0, stream=True) as stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == (answer.choices[0].message.content or "")
    assert model in {each.id for each in client.models.list()}
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=model, messages="hi")  # type: ignore[arg-type]  # on purpose


def test_request_timeout(http: httpx.Client, model: str, endless: dict[str, Any]) -> None:
    answer = http.post(CHAT, json=fields(model) | endless, headers={"x-request-timeout": "0.02"})
    assert answer.status_code == 504


TWICE = [
    '"max_tokens":2,"max_tokens":5',
    '"max_tokens":5,"max_tokens":2',
    '"max_tokens":5,"max\\u005ftokens":2',
    '"max\\u005ftokens":5,"max_tokens":2',
    '"MAX_TOKENS":2,"max_tokens":5',
    '"max_tokens":5,"Max_Tokens":2',
]


@pytest.mark.parametrize("written", TWICE)
def test_the_engine_reads_a_key_that_occurs_twice_as_the_gateway_does(
    direct: httpx.Client, http: httpx.Client, model: str, written: str
) -> None:
    text = json.dumps(fields(model, ignore_eos=True)).replace('"max_tokens": 16', written).encode()
    read = inspect_json(CHAT, text).max_tokens
    assert read == json.loads(text)["max_tokens"]
    for server in (direct, http):
        answer = server.post(CHAT, content=text, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["usage"]["completion_tokens"]) == (200, read), answer.text


def test_a_key_s_body_with_one_model_and_a_salt_is_answered(
    engine: str, direct: httpx.Client, model: str, tmp_path: Path
) -> None:
    key = add_key(tmp_path / "keys.jsonl", models=(model,))
    auth = {"mode": "keys", "keys_file": str(tmp_path / "keys.jsonl")}
    text = json.dumps(fields(model)).replace("{", '{"model":"smuggled","Model":"smuggled",', 1).encode()
    expected = direct.post(CHAT, json=fields(model)).json()["choices"][0]["message"]["content"]
    with Gateway(calm_config(main={"url": engine, "type": "vllm"}) | {"auth": auth}, tmp_path) as closed:
        headers = {"content-type": "application/json", "x-api-key": key.text}
        answer = httpx.post(f"{closed.http}{CHAT}", content=text, headers=headers, timeout=120)
        assert answer.json()["choices"][0]["message"]["content"] == expected
        body = json.dumps(fields("smuggled")).encode()
        assert httpx.post(f"{closed.http}{CHAT}", content=body, headers=headers, timeout=120).status_code == 404
