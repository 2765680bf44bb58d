"""The official anthropic client, unmodified, pointed at the gateway; and the shape of every error that it may get."""

import json
from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.types import MessageParam

from tests.support import wire
from tests.support.engine import ScriptedEngine
from tests.support.raw_server import chunk, closed_port, reply, stream_head
from tests.support.servers import Gateway, calm_config

MESSAGES = "/v1/messages"
LIMIT = 10_000
HELLO: list[MessageParam] = [{"role": "user", "content": "hi"}]
BODY = b'{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}'
OWN = b'{"type":"error","error":{"type":"billing_error","message":"pay"},"request_id":"theirs"}'
ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "Hello."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
START = b'event: message_start\ndata: {"type":"message_start","message":%b}\n\n' % json.dumps(ANSWER | {"content": []}).encode()


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("m") as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(engine: ScriptedEngine, folder: Path) -> Iterator[Gateway]:
    dead = {"url": f"http://127.0.0.1:{closed_port()}", "models": ["dead"], "first_token_timeout": 1}
    config = calm_config(main={"url": engine.url, "models": ["m"], "idle_timeout": 0.5}, dead=dead)
    config["server"]["max_body_bytes"] = LIMIT
    config["health"]["failure_threshold"] = 5
    config["routing"]["strict_models"] = True
    config["rate_limit"] = {"default_rate": 1000, "default_burst": 1000, "users": {"limited": {"rate": 0.001, "burst": 1}}}
    with Gateway(config, folder) as process:
        yield process


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[Anthropic]:
    with Anthropic(base_url=gateway.http, api_key="sk-not-for-the-engine", max_retries=0, timeout=10) as client:
        yield client


def error_of(body: bytes | object) -> dict[str, str]:
    """Anthropic's error object, checked for its shape."""
    whole = json.loads(body) if isinstance(body, bytes) else body
    assert isinstance(whole, dict)
    assert whole.keys() == {"type", "error", "request_id"}
    assert (whole["type"], whole["error"].keys()) == ("error", {"type", "message"})
    assert whole["request_id"]
    return dict(whole["error"])


def raised(client: Anthropic, model: str = "m", **fields: object) -> anthropic.APIStatusError:
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model=model, max_tokens=5, messages=HELLO, extra_body=fields)
    assert error_of(caught.value.body)["message"]
    return caught.value


def test_a_message(client: Anthropic, engine: ScriptedEngine) -> None:
    engine.answer = reply(json.dumps(ANSWER).encode())
    message = client.messages.create(model="m", max_tokens=5, messages=HELLO)
    assert (message.content[0].type, message.usage.output_tokens) == ("text", 2)


def test_each_failure_is_the_exception_of_its_kind(client: Anthropic, engine: ScriptedEngine) -> None:
    engine.answer = reply(json.dumps(ANSWER).encode())
    assert type(raised(client, temperature=0, stream="maybe")) is anthropic.BadRequestError
    assert type(raised(client, "nobody-has-this")) is anthropic.NotFoundError
    too_large = raised(client, more="x" * LIMIT)
    assert (type(too_large).__name__, too_large.status_code, too_large.type) == (
        "ContentTooLargeError",
        413,
        "request_too_large",
    )
    client.messages.create(model="m", max_tokens=5, messages=HELLO, metadata={"user_id": "limited"})
    limited = raised(client, metadata={"user_id": "limited"})
    assert (type(limited), limited.type) == (anthropic.RateLimitError, "rate_limit_error")
    engine.answer = reply(b"<html>", content_type="text/html")
    broken = raised(client)
    assert (type(broken), broken.status_code, broken.type) == (anthropic.InternalServerError, 502, "api_error")


def test_an_overloaded_service_is_529(client: Anthropic) -> None:
    def error() -> anthropic.APIStatusError | None:
        found = raised(client, "dead")
        return found if found.status_code != 502 else None  # until the breaker is open

    found = wire.wait_until(error, "the breaker to open")
    assert (found.status_code, type(found).__name__, found.type) == (529, "OverloadedError", "overloaded_error")
    assert found.response.headers["retry-after"]


def test_an_engine_s_own_error_is_untouched(client: Anthropic, gateway: Gateway, engine: ScriptedEngine) -> None:
    engine.answer = reply(OWN, status="402 Payment Required")
    answer = wire.post(gateway.http, MESSAGES, BODY)
    assert (answer.status, answer.body) == (402, OWN)
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model="m", max_tokens=5, messages=HELLO)
    assert caught.value.type == "billing_error"


def test_a_stream_that_breaks_ends_in_an_error_event(client: Anthropic, gateway: Gateway, engine: ScriptedEngine) -> None:
    engine.answer = lambda connection, _: connection.sendall(stream_head() + chunk(START))
    answer = wire.post(gateway.http, MESSAGES, BODY[:-1] + b',"stream":true}')
    assert answer.body.startswith(START)
    last = answer.body.removeprefix(START).removeprefix(b"event: error\ndata: ")
    assert json.loads(last)["error"]["type"] == "api_error"
    events = client.messages.create(model="m", max_tokens=5, messages=HELLO, stream=True)
    with pytest.raises(anthropic.APIStatusError) as caught:
        list(events)
    assert caught.value.type == "api_error"


# What is refused before the router is asked: method and path, status, type.
EARLY = {
    "GET": (wire.request(MESSAGES, method="GET"), 405, "invalid_request_error"),
    "a path that is not served": (wire.request(MESSAGES + "/batches", BODY), 404, "not_found_error"),
    "a content type": (wire.request(MESSAGES, BODY, headers={"content-type": "text/plain"}), 400, "invalid_request_error"),
    "an encoding": (wire.request(MESSAGES, BODY, headers={"content-encoding": "rot13"}), 415, "invalid_request_error"),
    "no body": (wire.request(MESSAGES), 400, "invalid_request_error"),
    "a malformed chunk": (
        wire.request(MESSAGES, headers={"content-length": "", "transfer-encoding": "chunked"}) + b"zz\r\n",
        400,
        "invalid_request_error",
    ),
    "a time limit": (wire.request(MESSAGES, BODY, headers={"x-request-timeout": "soon"}), 400, "invalid_request_error"),
}


@pytest.mark.parametrize("case", EARLY)
def test_what_is_refused_early_has_the_same_shape(gateway: Gateway, case: str) -> None:
    request, status, kind = EARLY[case]
    answer = wire.exchange(gateway.http, request.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1))
    assert (answer.status, error_of(answer.body)["type"]) == (status, kind)


def test_on_other_paths_they_are_openai_s(gateway: Gateway) -> None:
    answer = wire.exchange(gateway.http, wire.request("/v1/chat/completions", BODY.replace(b'"m"', b'"nobody-has-this"')))
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (404, "model_not_found")
