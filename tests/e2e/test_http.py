"""The HTTP face as curl sees it: every endpoint, the headers that go in and out, health and numbers."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import EMBEDDING_MODEL, MODEL
from tests.support import wire
from tests.support.engine import ScriptedEngine
from tests.support.raw_server import reply
from tests.support.servers import Gateway, Simulator, calm_config

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Tell me about foxes."}]


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": HELLO, "max_tokens": 8, **fields}


# -- endpoints


RELAYED: dict[str, tuple[dict[str, Any], str]] = {
    "/v1/chat/completions": (chat(), "choices"),
    "/v1/completions": ({"model": MODEL, "prompt": "Once", "max_tokens": 4}, "choices"),
    "/v1/embeddings": ({"model": EMBEDDING_MODEL, "input": "hello"}, "data"),
    "/v1/responses": ({"model": MODEL, "input": "hello", "max_output_tokens": 4}, "output"),
    "/v1/messages": ({"model": MODEL, "messages": HELLO, "max_tokens": 4}, "content"),
    "/v1/rerank": ({"model": EMBEDDING_MODEL, "query": "fox", "documents": ["fox", "dog"]}, "results"),
    "/rerank": ({"model": EMBEDDING_MODEL, "query": "fox", "documents": ["fox", "dog"]}, "results"),
    "/v1/score": ({"model": EMBEDDING_MODEL, "text_1": "fox", "text_2": ["fox", "dog"]}, "data"),
    "/score": ({"model": EMBEDDING_MODEL, "text_1": "fox", "text_2": ["fox", "dog"]}, "data"),
    "/pooling": ({"model": EMBEDDING_MODEL, "input": "hello"}, "data"),
    "/classify": ({"model": EMBEDDING_MODEL, "input": "hello"}, "data"),
    "/tokenize": ({"model": MODEL, "prompt": "hello"}, "tokens"),
    "/detokenize": ({"model": MODEL, "tokens": [1, 2, 3]}, "prompt"),
}


@pytest.mark.parametrize("path", RELAYED)
def test_a_relayed_endpoint_answers_as_the_engine(http: httpx.Client, sim: Simulator, path: str) -> None:
    body, field = RELAYED[path]
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert field in answer.json()
    assert answer.headers["x-lexora-backend"] == "main"
    assert answer.headers["x-lexora-attempts"] == "1"
    assert [call["path"] for call in sim.posts()] == [path]


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/translations"])
def test_audio_is_relayed_as_a_form(http: httpx.Client, sim: Simulator, path: str) -> None:
    sound = bytes(range(256)) * 64
    answer = http.post(path, data={"model": MODEL}, files={"file": ("a.wav", sound, "audio/wav")})
    assert answer.status_code == 200, answer.text
    assert "text" in answer.json()
    assert [(call["path"], call["model"]) for call in sim.posts()] == [(path, MODEL)]


@pytest.mark.parametrize(("path", "field"), [("/generate", "text"), ("/chat", "response")])
def test_short_forms_stream(http: httpx.Client, path: str, field: str) -> None:
    body = {"prompt": "Hello", "max_tokens": 12, "seed": 1}
    whole = http.post(path, json=body).json()[field]
    answer = http.post(path, json=body | {"stream": True})
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert events[-1] == "[DONE]"
    assert "".join(json.loads(event)[field] for event in events[:-1]) == whole


def test_documentation(http: httpx.Client) -> None:
    assert http.get("/docs").status_code == 200
    paths = http.get("/openapi.json").json()["paths"]
    assert {CHAT, "/v1/models", "/generate", "/chat", "/health", *RELAYED} <= set(paths)


@pytest.mark.parametrize("path", ["/version", "/load", "/ping", "/sleep", "/collective_rpc", "/sim/stats", "/v1/realtime"])
def test_nothing_else_of_the_engine_is_reachable(http: httpx.Client, sim: Simulator, path: str) -> None:
    for method in ("GET", "POST"):
        answer = http.request(method, path, json=chat() if method == "POST" else None)
        assert answer.status_code == 404
        assert answer.json()["error"]["message"]
    assert not sim.posts()


# -- headers


def test_the_engine_sees_no_credentials_and_no_hop_by_hop_headers(http: httpx.Client, sim: Simulator) -> None:
    secret = {
        "authorization": "Bearer client-secret",
        "cookie": "session=client-secret",
        "x-api-key": "client-secret",
        "api-key": "client-secret",
        "proxy-authorization": "Basic client-secret",
        "x-forwarded-for": "10.1.2.3",
        "te": "trailers",
        "keep-alive": "timeout=5",
        "x-sim-fault": "status;code=500",
        "accept-encoding": "gzip",
    }
    assert http.post(CHAT, json=chat(), headers=secret).status_code == 200
    sent = sim.posts()[-1]["headers"]
    assert set(sent) == {"host", "accept-encoding", "user-agent", "content-type", "x-request-id", "content-length"}
    assert sent["accept-encoding"] == "identity"
    assert "client-secret" not in json.dumps(sent)


def test_secrets_and_prompts_are_in_no_log(http: httpx.Client, gateway: Gateway) -> None:
    http.post(CHAT, json=chat(user="tenant-7"), headers={"x-request-id": "logged", "authorization": "Bearer client-secret"})
    line = wire.wait_until(lambda: [each for each in gateway.lines if "logged" in each], "the call's line")[0]
    for part in ("tenant=tenant-7", f"model={MODEL}", "backend=main", "status=200", "tokens_out=8", "attempts=1"):
        assert part in line
    assert "client-secret" not in gateway.output
    assert "foxes" not in gateway.output


# -- numbers


def test_stats_and_metrics_tell_what_was_sent(http: httpx.Client, gateway: Gateway) -> None:
    names: dict[str, dict[str, str]] = {
        "lexora_requests_total": {"endpoint": CHAT, "model": MODEL},
        "lexora_tokens_output_total": {"model": MODEL},
        "lexora_request_duration_seconds_count": {"endpoint": CHAT},
        "lexora_time_to_first_token_seconds_count": {"model": MODEL},
    }

    def read() -> dict[str, float]:
        stats = http.get("/stats").json()
        found = {name: gateway.metric(name, **labels) for name, labels in names.items()}
        found["404"] = gateway.metric("lexora_requests_total", status="404")
        for name in ("total_requests", "successful_requests", "failed_requests", "total_tokens_output"):
            found[name] = stats[name]
        return found | {"chat": stats["requests_per_endpoint"].get(CHAT, 0)}

    before = read()
    for _ in range(3):
        http.post(CHAT, json=chat(max_tokens=5, ignore_eos=True)).raise_for_status()
    for _ in range(2):
        http.post(CHAT, json=chat(max_tokens=7, stream=True, ignore_eos=True)).raise_for_status()
    assert http.post(CHAT, json=chat(sim_fault="status;code=404")).status_code == 404
    after = read()
    assert {name: after[name] - before[name] for name in after} == {
        "lexora_requests_total": 6,
        "lexora_tokens_output_total": 29,
        "lexora_request_duration_seconds_count": 6,
        "lexora_time_to_first_token_seconds_count": 2,
        "404": 1,
        "total_requests": 6,
        "successful_requests": 5,
        "failed_requests": 1,
        "total_tokens_output": 29,
        "chat": 6,
    }
    assert not wire.gauges(gateway.http)


def test_metric_labels_are_bounded(http: httpx.Client, gateway: Gateway) -> None:
    for number in range(20):
        assert http.post(CHAT, json=chat(model=f"made-up-{number}")).status_code == 404
    assert "made-up" not in http.get("/metrics").text
    assert "made-up" not in json.dumps(http.get("/stats").json())
    assert gateway.metric("lexora_requests_total", model="other") >= 20


# -- time limits


@pytest.mark.parametrize("stream", [False, True])
def test_request_timeout_is_504_and_aborts_the_engine(http: httpx.Client, sim: Simulator, stream: bool) -> None:
    answer = http.post(CHAT, json=chat(stream=stream, sim_fault="hang"), headers={"x-request-timeout": "0.2"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert 0.15 < answer.elapsed.total_seconds() < 1
    wire.wait_until(lambda: sim.stats()["aborts"] == 1, "an abort")
    wire.wait_idle(str(http.base_url))


# -- health


@pytest.fixture
def engines() -> Iterator[list[ScriptedEngine]]:
    with ScriptedEngine("a") as one, ScriptedEngine("b") as two:
        yield [one, two]


def test_health_follows_the_engines(engines: list[ScriptedEngine], tmp_path: Path) -> None:
    with Simulator(model="c") as doomed:
        backends = {"one": {"url": engines[0].url}, "doomed": {"url": doomed.url}}
        with Gateway(calm_config(**backends), tmp_path) as gateway, httpx.Client(base_url=gateway.http, verify=False) as http:

            def health() -> tuple[int, str, dict[str, str]]:
                answer = http.get("/health")
                return answer.status_code, answer.json()["status"], answer.json()["backends"]

            assert health() == (200, "healthy", {"one": "healthy", "doomed": "healthy"})
            doomed.kill()
            degraded = (200, "degraded", {"one": "healthy", "doomed": "unhealthy"})
            wire.wait_until(lambda: health() == degraded, "degraded")
            assert http.get("/health/ready").status_code == 200
            assert gateway.metric("lexora_backend_health", backend="doomed") == 0
            engines[0].pages["/health"] = reply(b"{}", status="503 Service Unavailable")
            gone = (503, "unhealthy", {"one": "unhealthy", "doomed": "unhealthy"})
            wire.wait_until(lambda: health() == gone, "unhealthy")
            assert http.get("/health/ready").status_code == 503
            assert http.get("/health/live").status_code == 200
            engines[0].pages["/health"] = reply(b"{}")
            wire.wait_until(lambda: health() == degraded, "degraded again")
            assert http.get("/health").json()["version"]


def test_what_the_facade_refuses_is_in_the_log_as_the_client_was_told(gateway: Gateway, http: httpx.Client) -> None:
    headers = {"content-type": "text/plain", "x-request-id": "refused-by-the-facade"}
    answer = http.post("/v1/chat/completions", content=b"{}", headers=headers)
    assert answer.status_code == 400
    line = gateway.wait_for(r".*refused-by-the-facade.*").group(0)
    assert f"The facade answered 400: {answer.json()['error']['message']}" in line.replace("\\'", "'")
    answer = http.post("/v1/chat/completions", content=b"{}", headers={"content-encoding": "x", "x-request-id": "no-400"})
    assert answer.status_code == 415
    assert re.search(r"status\W+415", gateway.wait_for(r".*no-400.*").group(0)), "the log has the client's status"
