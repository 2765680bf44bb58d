"""What goes through the gateway comes out as it went in: every captured exchange with a real engine, byte by byte."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import wire
from tests.support.captures import Exchange, exchange, exchanges
from tests.support.engine import ScriptedEngine
from tests.support.raw_server import reply
from tests.support.servers import Gateway, calm_config

# The gateway answers these itself, because no engine could do better: status and OpenAI's `param`.
OWN_ANSWERS: dict[str, tuple[int, str | None]] = {
    "err_bad_json": (400, None),
    "err_empty_body": (400, "body"),
    "err_not_utf8": (400, None),
    "err_json_array": (400, None),
    "err_wrong_type_max_tokens": (400, "max_tokens"),
    "err_wrong_type_messages": (400, "messages"),
    "err_wrong_type_stream": (400, "stream"),
    "err_missing_messages": (400, "messages"),
    "err_no_model": (400, "model"),
    "err_content_type_text": (400, "content-type"),
    "err_no_content_type": (400, "content-type"),
    "embed_no_input": (400, "input"),
}
# What the engine says to its connection or for itself; the gateway has its own.
NOT_END_TO_END = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "date",
    "server",
    "vary",
    "access-control-allow-origin",
    "x-request-id",
}
# What the gateway adds.
OWN_HEADERS = {
    "date",
    "x-request-id",
    "x-lexora-backend",
    "x-lexora-attempts",
    "content-length",
    "transfer-encoding",
    "connection",
}
OWN_STREAM_HEADERS = {"cache-control", "x-accel-buffering"}
ASKED_USAGE = b'"stream_options":{"include_usage":true},'

CASES = exchanges("vllm", "vllm-embed", "vllm-api-key", "llama-server")
RELAYED = [case for case in CASES if case.name.split("/")[1] not in OWN_ANSWERS]
ANSWERED = [case for case in CASES if case.name.split("/")[1] in OWN_ANSWERS]


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine() as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(engine: ScriptedEngine, folder: Path) -> Iterator[Gateway]:
    with Gateway(calm_config(engine={"url": engine.url}), folder) as process:
        yield process


def call(gateway: Gateway, case: Exchange) -> wire.Response:
    headers = {"content-type": "", "connection": "close"} | case.request_headers
    return wire.exchange(gateway.http, wire.request(case.path, case.body, headers=headers))


@pytest.mark.parametrize("case", RELAYED, ids=lambda case: case.name)
def test_the_answer_is_the_engines(gateway: Gateway, engine: ScriptedEngine, case: Exchange) -> None:
    engine.answer = case.response
    before = len(engine.requests)
    answer = call(gateway, case)
    assert (answer.status, answer.body) == (case.status, case.response_body)
    engines = {pair for pair in case.response_headers if pair[0] not in NOT_END_TO_END}
    own = OWN_HEADERS | (OWN_STREAM_HEADERS if b"text/event-stream" in case.response else set())
    assert {pair for pair in answer.headers if pair[0] not in own} == {pair for pair in engines if pair[0] not in own}
    assert answer.header("x-lexora-backend") == "engine"
    assert len(engine.requests) == before + 1
    assert engine.last.target == case.path
    assert engine.last.body.replace(ASKED_USAGE, b"", 1) == case.body
    assert engine.last.header("content-type") == case.request_headers["content-type"]


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case.name)
def test_what_no_engine_need_see_is_answered_here(gateway: Gateway, engine: ScriptedEngine, case: Exchange) -> None:
    before = len(engine.requests)
    answer = call(gateway, case)
    status, param = OWN_ANSWERS[case.name.split("/")[1]]
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["type"], error["param"]) == (status, "invalid_request_error", param)
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert len(engine.requests) == before


def test_every_own_answer_has_a_capture() -> None:
    assert {case.name.split("/")[1] for case in ANSWERED} == set(OWN_ANSWERS)
    assert len(RELAYED) > 90


@pytest.mark.parametrize("engine_name", ["vllm"])
def test_usage_that_the_client_did_not_ask_for_is_hidden(gateway: Gateway, engine: ScriptedEngine, engine_name: str) -> None:
    asked = exchange(f"{engine_name}/chat_stream_usage")
    case = exchange(f"{engine_name}/chat_stream")
    engine.answer = asked.response
    answer = call(gateway, case)
    events = asked.response_body.split(b"\n\n")
    hidden = [event for event in events if b'"choices":[]' in event]
    assert len(hidden) == 1
    assert answer.body == b"\n\n".join(event for event in events if event not in hidden)


# -- requests


ODD_BODIES = {
    "unknown fields": b'{"model":"m","messages":[],"x_new_field":{"deep":[1,{"a":null}]},"chat_template_kwargs":{"t":false}}',
    "big integer": b'{"model":"m","messages":[],"seed": 9007199254740993}',
    "numbers as written": b'{"model":"m","messages":[],"temperature":1.0,"top_p":1e-1,"x":0.10,"y":12345678901234567890123}',
    "explicit nulls": b'{"model":"m","messages":[],"stop":null,"tools":null,"seed":null,"stream":null}',
    "similar keys": b'{"model":"m","messages":[],"Model":"n","model ":"o","MODEL":1,"mo\\u0064els":[]}',
    "duplicate keys": b'{"model":"a","messages":[],"model":"m","seed":1,"seed":2}',
    "unicode keys": '{"model":"m","messages":[{"content":"日本語 🦊 \\ud83e\\udd8a"}],"ключ":1,"\\u00e9":"é"}'.encode(),
    "whitespace": b' \n{ "model" :\t"m" ,\r\n  "messages" : [ ] , "stream" : false }\n ',
    "escapes": b'{"model":"m","messages":[{"role":"user","content":"a\\/b\\u0000\\n"}]}',
}


@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES)
def test_a_request_reaches_the_engine_unchanged(gateway: Gateway, engine: ScriptedEngine, body: bytes) -> None:
    engine.answer = reply(b'{"object":"chat.completion"}')
    assert wire.post(gateway.http, "/v1/chat/completions", body).status == 200
    assert engine.last.body == body


@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES)
def test_a_streamed_request_differs_in_stream_options_only(gateway: Gateway, engine: ScriptedEngine, body: bytes) -> None:
    streamed = (
        body.rstrip()[:-1].replace(b'"stream":null', b'"n":1').replace(b'"stream" : false', b'"n":1') + b',"stream":true}'
    )
    engine.answer = exchange("vllm/chat_stream_usage").response
    assert wire.post(gateway.http, "/v1/chat/completions", streamed).status == 200
    assert engine.last.body.replace(ASKED_USAGE, b"", 1) == streamed
    assert ASKED_USAGE in engine.last.body


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("null", {"include_usage": True}),
        ("{}", {"include_usage": True}),
        ('{"include_usage":false,"x":9007199254740993}', {"include_usage": True, "x": 9007199254740993}),
        ('{"include_usage":true,"continuous_usage_stats":true}', {"include_usage": True, "continuous_usage_stats": True}),
    ],
)
def test_stream_options_keep_what_else_is_in_them(
    gateway: Gateway, engine: ScriptedEngine, given: str, sent: dict[str, object]
) -> None:
    body = f'{{"model":"m","messages":[],"seed": 9007199254740993,"stream":true,"stream_options":{given}}}'.encode()
    engine.answer = exchange("vllm/chat_stream_usage").response
    assert wire.post(gateway.http, "/v1/chat/completions", body).status == 200
    got = json.loads(engine.last.body)
    assert got.pop("stream_options") == sent
    assert got == {"model": "m", "messages": [], "seed": 9007199254740993, "stream": True}


def test_headers_of_the_engine_pass_but_for_those_of_its_connection(gateway: Gateway, engine: ScriptedEngine) -> None:
    passed = {"retry-after": "7", "x-ratelimit-remaining-tokens": "12", "openai-processing-ms": "5", "x-served-by": "a, b"}
    kept_back = {"connection": "close, x-hop", "set-cookie": "a=b", "server": "uvicorn", "keep-alive": "5", "x-hop": "1"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (passed | kept_back).items())
    engine.answer = reply(b'{"error":{"message":"slow down"}}', status="429 Too Many Requests", headers=lines)
    answer = wire.post(gateway.http, "/v1/chat/completions", b'{"model":"m","messages":[]}')
    assert (answer.status, answer.body) == (429, b'{"error":{"message":"slow down"}}')
    assert {name: answer.header(name) for name in passed} == passed
    assert not {"set-cookie", "server", "keep-alive", "x-hop"} & {name for name, _ in answer.headers}
