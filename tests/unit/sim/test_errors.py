from __future__ import annotations

import json
from typing import Any

import pytest

from lexora_sim import SimSettings, Simulator
from tests.unit.sim.helpers import HELLO, Answer, call, chat, complete, post

PATH = "/v1/chat/completions"


def error(message: str, kind: str = "BadRequestError", param: str | None = None, code: int = 400) -> bytes:
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return json.dumps(body, separators=(",", ":")).encode()


def invalid(problem: str, param: str) -> bytes:
    return error(f"1 validation error:\n  {problem}", "Bad Request", param)


@pytest.mark.parametrize(
    ("fields", "message", "param"),
    [
        ({"temperature": -1}, "temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)", "temperature"),
        ({"top_p": 2}, "top_p must be in (0, 1], got 2.0. (parameter=top_p, value=2.0)", "top_p"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)", "max_tokens"),
        ({"n": 0}, "n must be at least 1, got 0.", None),
        (
            {"stream_options": {"include_usage": True}},
            "Stream options can only be defined when `stream=True`. (parameter=stream_options)",
            "stream_options",
        ),
        (
            {"messages": []},
            "Cannot apply chat template to an empty conversation. Provide at least one message.",
            None,
        ),
        (
            {"max_tokens": 10_000_000},
            "max_tokens=10000000 cannot be greater than max_model_len=1024. Please request fewer output tokens. "
            "(parameter=max_tokens, value=10000000)",
            "max_tokens",
        ),
        (
            {"messages": [{"role": "user", "content": "word " * 6000}]},
            "This model's maximum context length is 1024 tokens. However, your prompt contains at least 1025 input tokens, "
            "which exceeds this limit even without any output tokens. Please reduce the length of the input prompt. "
            "(parameter=input_tokens, value=1025)",
            "input_tokens",
        ),
        ({"priority": 1}, "Got priority 1 but Priority scheduling is not enabled.", None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_values(sim: Simulator, fields: dict[str, Any], message: str, param: str | None, *, stream: bool) -> None:
    answer = await chat(sim, **fields, **({"stream": True} if stream and "stream_options" not in fields else {}))
    assert answer.status == 400
    assert answer.body == error(message, param=param)
    assert sim.app.scheduler.running == 0


@pytest.mark.parametrize(
    ("body", "problem", "param"),
    [
        (
            b'{"model": "x", "messages": [',
            "{'type': 'json_invalid', 'loc': 'body.28', 'msg': 'JSON decode error', 'input': '<dict of 0 items>', "
            "'ctx': {'error': 'Expecting value'}}",
            "body.28",
        ),
        (b"", "{'type': 'missing', 'loc': 'body', 'msg': 'Field required', 'input': 'None'}", "body"),
        (
            b"[]",
            "{'type': 'model_attributes_type', 'loc': 'body', 'msg': 'Input should be a valid dictionary or object to "
            "extract fields from', 'input': '<list of 0 items>'}",
            "body",
        ),
        (
            b'{"model": "tiny"}',
            "{'type': 'missing', 'loc': 'body.messages', 'msg': 'Field required', 'input': '<dict of 1 items>'}",
            "body.messages",
        ),
        (
            b'{"messages": "hello"}',
            "{'type': 'list_type', 'loc': 'body.messages', 'msg': 'Input should be a valid list', 'input': 'hello'}",
            "body.messages",
        ),
        (
            b'{"messages": [], "max_tokens": "ten"}',
            "{'type': 'int_parsing', 'loc': 'body.max_tokens', 'msg': 'Input should be a valid integer, unable to parse "
            "string as an integer', 'input': 'ten'}",
            "body.max_tokens",
        ),
        (
            b'{"messages": [], "stream": "maybe"}',
            "{'type': 'bool_parsing', 'loc': 'body.stream', 'msg': 'Input should be a valid boolean, unable to interpret "
            "input', 'input': 'maybe'}",
            "body.stream",
        ),
    ],
)
async def test_shapes(sim: Simulator, body: bytes, problem: str, param: str) -> None:
    answer = await post(sim, PATH, body)
    assert (answer.status, answer.body) == (400, invalid(problem, param))


@pytest.mark.parametrize("body", [b'{"model":"\xff\xfe"}', b'{"a":' + b"[" * 100_000])
async def test_undecodable(sim: Simulator, body: bytes) -> None:
    answer = await post(sim, PATH, body)
    assert (answer.status, answer.body) == (400, b'{"detail":"There was an error parsing the body"}')


async def test_unknown_model(sim: Simulator) -> None:
    answer = await chat(sim, model="nope")
    text = "The model `nope` does not exist. Valid aliases: tiny."
    assert (answer.status, answer.body) == (404, error(text, "NotFoundError", "model", 404))
    answer = await post(sim, "/v1/embeddings", {"model": "nope", "input": "x"})
    assert answer.body == error("The model `nope` does not exist.", "NotFoundError", None, 404)


async def test_content_type(sim: Simulator) -> None:
    answer = await post(sim, PATH, HELLO, **{"content-type": "text/plain"})
    text = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
    assert (answer.status, answer.body) == (400, error(text, "Bad Request"))


async def test_paths_and_methods(sim: Simulator) -> None:
    answer = await call(sim, "GET", "/nope")
    assert (answer.status, answer.body) == (404, b'{"detail":"Not Found"}')
    answer = await call(sim, "GET", PATH)
    assert (answer.status, answer.body) == (405, b'{"detail":"Method Not Allowed"}')
    assert answer.head.split("\r\n")[3] == "allow: POST"
    head = await call(sim, "HEAD", "/v1/models")
    assert (head.status, head.headers["content-length"], head.body) == (405, "31", b"")


async def test_no_embeddings_without_a_model_for_them(quick: dict[str, object]) -> None:
    async with Simulator(SimSettings(**{**quick, "embedding_models": ()})) as sim:  # type: ignore[arg-type]  # test settings
        assert (await post(sim, "/v1/embeddings", {"input": "x"})).body == b'{"detail":"Not Found"}'


async def test_api_key(quick: dict[str, object]) -> None:
    async with Simulator(SimSettings(api_key="k", **quick)) as sim:  # type: ignore[arg-type]  # test settings
        refused = [await call(sim, "GET", "/v1/models"), await post(sim, PATH, HELLO, authorization="Bearer no")]
        for answer in refused:
            assert (answer.status, answer.body) == (401, b'{"error":"Unauthorized"}')
            assert "vary" not in answer.headers
        assert (await call(sim, "GET", "/v1/models", authorization="Bearer k")).status == 200
        assert (await call(sim, "GET", "/health")).status == 200


async def test_unknown_fields_are_ignored(sim: Simulator) -> None:
    assert (await chat(sim, no_such_field=1, seed=9007199254740993, user=None)).status == 200


async def test_too_much_asked(sim: Simulator) -> None:
    assert (await complete(sim, "word " * 200, max_tokens=1000)).json()["error"]["param"] == "input_tokens"


async def test_bad_http(sim: Simulator) -> None:
    answer: Answer = await call(sim, "GE T", "/health")
    assert (answer.status, answer.body) == (400, b"Invalid HTTP request received.")


async def test_body_limit(quick: dict[str, object]) -> None:
    async with Simulator(SimSettings(max_body_bytes=1000, **quick)) as sim:  # type: ignore[arg-type]  # test settings
        assert (await post(sim, PATH, b"x" * 2000)).status == 413
