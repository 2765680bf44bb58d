"""A backend of type anthropic: clients of both APIs, unmodified, and an engine that takes only what Anthropic documents."""

import json
import queue
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import grpc
import httpx
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from lexora.client import Client, LexoraError, ToolRequest
from tests.support import wire
from tests.support.engine import until_closed
from tests.support.messages_engine import KEY, MessagesEngine, error, error_body, event
from tests.support.raw_server import LAST_CHUNK, RawRequest, chunk, reply, stream_head
from tests.support.servers import Gateway, Simulator, base_config, calm_config

IDLE_SECONDS = 0.9
MODEL, ALIAS = "claude-sonnet-5", "house-model"
HELLO: list[Any] = [{"role": "user", "content": "hi"}]
WEATHER: Any = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CALLS = [
    {"type": "thinking", "thinking": "Two cities, two calls.", "signature": "signed"},
    {"type": "text", "text": "I will look."},
    {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Rōma"}},
    {"type": "tool_use", "id": "toolu_2", "name": "get_weather", "input": {}},
]


@pytest.fixture(scope="module")
def shared_engine() -> Iterator[MessagesEngine]:
    with MessagesEngine(MODEL, "claude-haiku-5") as engine:
        yield engine


@pytest.fixture
def engine(shared_engine: MessagesEngine) -> MessagesEngine:
    shared_engine.reset()
    shared_engine.requests.clear()
    return shared_engine


@pytest.fixture(scope="module")
def gateway(shared_engine: MessagesEngine, folder: Path) -> Iterator[Gateway]:
    claude = {
        "url": shared_engine.url,
        "type": "anthropic",
        "api_key": KEY,
        "idle_timeout": IDLE_SECONDS,
        "models": [MODEL, ALIAS],
        "model_mapping": {ALIAS: MODEL},
    }
    with Gateway(calm_config(claude=claude), folder) as process:
        yield process


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.http}/v1", api_key="sk-not-for-the-engine", max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture(scope="module")
def native(gateway: Gateway) -> Iterator[Anthropic]:
    with Anthropic(base_url=gateway.http, api_key="sk-not-for-the-engine", max_retries=0, timeout=10) as client:
        yield client


def sent(engine: MessagesEngine) -> dict[str, Any]:
    assert engine.last.target == "/v1/messages"
    return dict(json.loads(engine.last.body))


def test_a_chat(client: OpenAI, engine: MessagesEngine) -> None:
    system: list[ChatCompletionMessageParam] = [{"role": "system", "content": "Be brief."}, *HELLO]
    answer = client.chat.completions.create(
        model=ALIAS, messages=system, max_tokens=50, temperature=1.5, stop=["END"], seed=3, user="ann"
    )
    assert sent(engine) == {
        "model": MODEL,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": HELLO,
        "max_tokens": 50,
        "temperature": 1.0,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "ann"},
    }
    assert (answer.id, answer.object, answer.model) == ("msg_engine", "chat.completion", ALIAS)
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Hello there.", "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (43, 7, 50)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 30


def test_a_streamed_chat(client: OpenAI, engine: MessagesEngine) -> None:
    with client.chat.completions.create(model=ALIAS, messages=HELLO, stream=True) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello there."
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]
    assert {chunk.model for chunk in chunks} == {ALIAS}
    assert all(chunk.usage is None for chunk in chunks)
    with client.chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        last = list(stream)[-1]
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (43, 7)


def test_the_bytes_of_a_stream_are_openai_s(gateway: Gateway, engine: MessagesEngine) -> None:
    body = json.dumps({"model": MODEL, "messages": HELLO, "stream": True}).encode()
    answer = wire.post(gateway.http, "/v1/chat/completions", body)
    assert (answer.header("content-type") or "").startswith("text/event-stream")
    events = answer.body.split(b"\n\n")
    assert all(each.startswith(b"data: {") or each == b": ping" for each in events[:-2])
    assert events[-2:] == [b"data: [DONE]", b""]


def test_a_client_that_leaves_is_out_of_its_engine_at_once(gateway: Gateway, engine: MessagesEngine) -> None:
    left = queue.Queue[float]()

    def speak(connection: socket.socket, _: RawRequest) -> None:
        connection.sendall(stream_head() + b"".join(map(chunk, engine.events(MODEL)[:4])))
        left.put(until_closed(connection))

    engine.answer = speak
    body = json.dumps({"model": MODEL, "messages": HELLO, "stream": True}).encode()
    with wire.connect(gateway.http) as connection:
        connection.sendall(wire.request("/v1/chat/completions", body))
        connection.recv(65536)
    left.get(timeout=5)


def test_pings_are_no_silence(client: OpenAI, engine: MessagesEngine) -> None:
    first, *rest = engine.events(MODEL)

    def think(connection: socket.socket, _: RawRequest) -> None:
        connection.sendall(stream_head() + chunk(first))
        for _ in range(6):
            time.sleep(IDLE_SECONDS / 3)
            connection.sendall(chunk(event("ping")))
        connection.sendall(b"".join(map(chunk, rest)) + LAST_CHUNK)

    engine.answer = think
    with client.chat.completions.create(model=MODEL, messages=HELLO, stream=True) as stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello there."


def test_tools_there_and_back(client: OpenAI, engine: MessagesEngine) -> None:
    engine.blocks, engine.stop_reason = CALLS, "tool_use"
    first = client.chat.completions.create(
        model=MODEL, messages=HELLO, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False
    )
    assert sent(engine)["tools"] == [{"name": "get_weather", "input_schema": WEATHER["function"]["parameters"]}]
    assert sent(engine)["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    said = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"
    assert said.content == "I will look."
    assert said.to_dict()["reasoning_content"] == "Two cities, two calls."
    calls = said.tool_calls or []
    assert [(call.id, call.type, json.loads(call.function.arguments)) for call in calls if call.type == "function"] == [
        ("toolu_1", "function", {"city": "Rōma"}),
        ("toolu_2", "function", {}),
    ]
    engine.reset()
    results: list[Any] = [{"role": "tool", "tool_call_id": call.id, "content": f"sun {call.id}"} for call in calls]
    client.chat.completions.create(model=MODEL, messages=[*HELLO, said.to_dict(), *results], tools=[WEATHER])
    assert sent(engine)["messages"] == [
        *HELLO,
        {"role": "assistant", "content": CALLS},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sun toolu_1"},
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": "sun toolu_2"},
            ],
        },
    ]


ERRORS: dict[int, tuple[str, type[openai.APIStatusError]]] = {
    400: ("invalid_request_error", openai.BadRequestError),
    401: ("authentication_error", openai.AuthenticationError),
    404: ("not_found_error", openai.NotFoundError),
    429: ("rate_limit_error", openai.RateLimitError),
    500: ("api_error", openai.InternalServerError),
    529: ("overloaded_error", openai.InternalServerError),
}


@pytest.mark.parametrize("status", ERRORS)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_keeps_its_status_and_is_openai_s(client: OpenAI, engine: MessagesEngine, status: int, stream: bool) -> None:
    kind, raised = ERRORS[status]
    engine.answer = error(status, kind, "Not now.", "retry-after: 7\r\n")
    with pytest.raises(raised) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO, stream=stream)
    assert caught.value.status_code == status
    assert caught.value.body == {"message": "Not now.", "type": kind, "param": None, "code": None}
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.response.headers["request-id"] == "req_engine"


def test_an_error_in_mid_stream(client: OpenAI, engine: MessagesEngine) -> None:
    engine.broken = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    stream = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    with stream, pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.body == {"message": "Overloaded", "type": "overloaded_error", "param": None, "code": None}


def test_an_error_instead_of_a_stream_has_the_status_that_it_names(gateway: Gateway, engine: MessagesEngine) -> None:
    engine.answer = reply(
        event("error", error={"type": "overloaded_error", "message": "Overloaded"}), content_type="text/event-stream"
    )
    answer = wire.post(
        gateway.http, "/v1/chat/completions", json.dumps({"model": MODEL, "messages": HELLO, "stream": True}).encode()
    )
    assert (answer.status, json.loads(answer.body)["error"]["type"]) == (529, "overloaded_error")


def test_a_stream_that_stops_is_a_broken_one(client: OpenAI, engine: MessagesEngine) -> None:
    engine.broken = b": \n\n"
    stream = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    with stream, pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "upstream_broken"


def test_what_the_messages_api_lacks_is_refused_by_name(client: OpenAI, engine: MessagesEngine) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO, n=2)
    assert (caught.value.param, caught.value.code) == ("n", "unsupported_by_backend")
    assert engine.requests == []


def test_operations_that_it_does_not_serve_are_refused_and_explained(gateway: Gateway, engine: MessagesEngine) -> None:
    body = {"model": MODEL, "input": "hi"}
    with httpx.Client(base_url=gateway.http, timeout=10, verify=False) as http:
        for path in ("/v1/embeddings", "/v1/responses"):
            answer = http.post(path, json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_by_backend")
            assert "it serves /v1/chat/completions, /v1/messages" in answer.json()["error"]["message"]
        explained = http.post("/v1/embeddings", json=body, headers={"x-lexora-explain": "1"}).json()
        assert (explained["verdict"], explained["error"]) == ("reject", "UNSUPPORTED_BY_BACKEND")
        assert "does not serve /v1/embeddings" in explained["targets"][0]["reason"]
        assert http.get("/v1/responses/resp_1").status_code == 404
    assert engine.requests == []


RAW = b'{ "model":"%b", "max_tokens":9007199254740993, "messages":[{"role":"user","content":"\\u00e9"}], "top_k":1e1 %b}'


def test_messages_pass_untouched(gateway: Gateway, engine: MessagesEngine) -> None:
    body = RAW % (MODEL.encode(), b"")
    headers = {"anthropic-beta": "a-2026-01-01,b-2026-02-02", "anthropic-other": "x", "x-api-key": "sk-client"}
    answer = wire.exchange(gateway.http, wire.request("/v1/messages", body, headers=headers))
    assert engine.last.body == body
    passed = {name: engine.last.header(name) for name in (*headers, "anthropic-version", "authorization")}
    assert passed == {
        "anthropic-beta": "a-2026-01-01,b-2026-02-02",
        "anthropic-other": None,
        "x-api-key": KEY,
        "anthropic-version": "2023-06-01",
        "authorization": None,
    }
    assert json.loads(answer.body)["content"] == engine.blocks
    streamed = wire.post(gateway.http, "/v1/messages", RAW % (MODEL.encode(), b',"stream":true'))
    assert streamed.body == b"".join(engine.events(MODEL))


def test_the_native_client(native: Anthropic, engine: MessagesEngine) -> None:
    engine.blocks, engine.stop_reason = CALLS, "tool_use"
    message = native.messages.create(model=ALIAS, max_tokens=5, messages=HELLO)
    assert (message.model, message.stop_reason, len(message.content)) == (ALIAS, "tool_use", 4)
    with native.messages.stream(model=MODEL, max_tokens=5, messages=HELLO) as stream:
        assert stream.get_final_message().content[2].to_dict() == CALLS[2]
    assert native.messages.count_tokens(model=MODEL, messages=HELLO).input_tokens == 43
    engine.answer = error(529, "overloaded_error", "Overloaded")
    with pytest.raises(anthropic.APIStatusError) as caught:
        native.messages.create(model=MODEL, max_tokens=5, messages=HELLO)
    assert (caught.value.status_code, caught.value.body) == (529, json.loads(error_body("overloaded_error", "Overloaded")))


def test_its_models_are_listed_in_openai_s_form(client: OpenAI, gateway: Gateway) -> None:
    def listed() -> dict[str, Any] | None:
        found = {model.id: model.to_dict() for model in client.models.list()}
        return found if "claude-haiku-5" in found else None

    found = wire.wait_until(listed, "the list of models")
    assert found["claude-haiku-5"] == {
        "id": "claude-haiku-5",
        "object": "model",
        "created": 1769904000,
        "owned_by": "anthropic",
        "display_name": "Claude-Haiku-5",
        "max_model_len": 200_000,
        "backend": "claude",
    }


def test_usage_is_counted(client: OpenAI, gateway: Gateway, engine: MessagesEngine) -> None:
    def tokens() -> float:
        return gateway.metric("lexora_tokens_input_total", model=MODEL)

    before = tokens()
    client.chat.completions.create(model=MODEL, messages=HELLO)
    with client.chat.completions.create(model=MODEL, messages=HELLO, stream=True) as stream:
        list(stream)
    wire.wait_until(lambda: tokens() - before == 86 or None, "both calls to be counted")


def test_typed_callers_are_translated_too(gateway: Gateway, engine: MessagesEngine) -> None:
    engine.blocks, engine.stop_reason = CALLS, "tool_use"
    wanted = [ToolRequest("toolu_1", "get_weather", {"city": "Rōma"}), ToolRequest("toolu_2", "get_weather", {})]
    with Client(gateway.grpc, timeout=10) as client:
        answer = client.chat(MODEL, "hi", max_tokens=5)
        assert (answer.text, answer.tool_calls, answer.receipt.usage.input_tokens) == ("I will look.", wanted, 43)
        with client.stream(MODEL, "hi") as stream:
            assert "".join(stream) == "I will look."
            assert (stream.tool_calls, stream.receipt.usage.output_tokens) == (wanted, 7)
        engine.answer = error(529, "overloaded_error", "Overloaded")
        with pytest.raises(LexoraError) as caught:
            client.chat(MODEL, "hi")
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_ERROR")


def test_retries_breakers_and_limits_are_those_of_every_backend(engine: MessagesEngine, tmp_path: Path) -> None:
    with MessagesEngine(MODEL) as busy:
        busy.answer = error(529, "overloaded_error", "Overloaded")
        claude = {"urls": [busy.url, engine.url], "type": "anthropic", "api_key": KEY, "models": [MODEL]}
        config = base_config(claude=claude)
        config["health"]["failure_threshold"] = 2
        config["rate_limit"] = {"default_rate": 1000, "default_burst": 1000, "tokens_per_minute": 1000}
        with Gateway(config, tmp_path) as gateway, OpenAI(base_url=f"{gateway.http}/v1", api_key="x", max_retries=0) as client:

            def chat(user: str, **fields: Any) -> Any:
                return client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, user=user, **fields)

            attempts = {chat("ann", max_tokens=5).headers["x-lexora-attempts"] for _ in range(12)}
            assert attempts == {"1", "2"}  # never a failure, whichever endpoint is asked first
            assert len(busy.requests) > 2  # one that is overloaded is well, and asked again
            # Charged is what the engine counted: 43 tokens in and 7 out of each call.
            assert int(chat("bob", max_tokens=5).headers["x-ratelimit-remaining-tokens"]) > 900
            assert int(chat("bob", max_tokens=5).headers["x-ratelimit-remaining-tokens"]) in range(900, 950)
            engine.broken = b": \n\n"
            engine.requests.clear()
            stream = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
            with stream, pytest.raises(openai.APIError):
                list(stream)
            assert len(engine.requests) == 1  # the client had seen its beginning


def test_one_beside_a_fleet_as_its_fallback(engine: MessagesEngine, tmp_path: Path) -> None:
    with Simulator(model=MODEL) as sim:
        claude = {"url": engine.url, "type": "anthropic", "api_key": KEY}
        config = calm_config(main={"url": sim.url, "models": [MODEL], "fallback_backends": ["claude"]}, claude=claude)
        with Gateway(config, tmp_path) as gateway, OpenAI(base_url=f"{gateway.http}/v1", api_key="x", max_retries=0) as client:
            sim.fault("status;code=500")
            answer = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
            assert answer.headers["x-lexora-fallback"] == "main->claude;reason=UPSTREAM_ERROR"
            assert answer.parse().choices[0].message.content == "Hello there."
            with pytest.raises(openai.InternalServerError):  # what the fallback lacks hides no failure
                client.chat.completions.create(model=MODEL, messages=HELLO, n=2)
