"""Typed calls against real engines: requests in vLLM's own field names and types, captured answers read without loss."""

import json
import math
from typing import Any

import pytest
from tests.support.captures import FOLDER, Exchange, exchanges

from lexora.v1 import chat_pb2, completion_pb2, sampling_pb2, tokens_pb2
from lexora_router.edge.translate import (
    chat_body,
    chat_chunks,
    chat_response,
    completion_body,
    completion_chunks,
    completion_response,
)

SCHEMAS: dict[str, Any] = json.loads((FOLDER / "vllm" / "openapi_requests.json").read_text())
CLOSED = {"ChatCompletionRequest", "CompletionRequest", "StructuredOutputsParams"}  # vLLM takes other names and ignores them
TYPES = {
    "string": str,
    "integer": int,
    "number": int | float,
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value is what the schema says; fails on a field that a closed schema does not name."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        found: dict[str, Any] = SCHEMAS[name]
        unknown = set(value) - set(found["properties"]) if name in CLOSED and isinstance(value, dict) else set()
        assert not unknown, f"vLLM's {name} has no {unknown}"
        return fits(value, found)
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return any(fits(value, option) for option in options)
    known = schema.get("properties", {})
    fields = value if isinstance(value, dict) else {}
    return (
        (kind := schema.get("type")) in (None, "boolean" if isinstance(value, bool) else kind)
        and (kind is None or isinstance(value, TYPES[kind]))
        and value in schema.get("enum", [value])
        and value == schema.get("const", value)
        and set(schema.get("required", [])) <= set(fields)
        and all(fits(fields[name], known[name]) for name in set(known) & set(fields))
        and all(fits(each, schema.get("items", {})) for each in (value if isinstance(value, list) else []))
    )


def is_vllm_s(body: bytes, name: str) -> bool:
    return fits(json.loads(body), {"$ref": f"#/{name}"})


SAMPLING = sampling_pb2.SamplingParams(
    **{"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "min_p": 0.1, "stop": ["a"], "seed": 2**53 + 1, "n": 2},
    **{"presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.1, "min_tokens": 1, "stop_token_ids": [1]},
    **{"logit_bias": {7: -1}, "thinking_token_budget": 5, "return_token_ids": True, "prompt_logprobs": 1},
)
TOOL = chat_pb2.Tool(function={"name": "f", "description": "d", "parameters_json": "{}", "strict": True})
CALL = chat_pb2.ToolCall(id="t", name="f", arguments_json="{}")
PARTS = [
    chat_pb2.ContentPart(text="a"),
    chat_pb2.ContentPart(image={"url": "http://x", "detail": "IMAGE_DETAIL_LOW"}),
    chat_pb2.ContentPart(audio={"data": b"a", "format": "wav"}),
    chat_pb2.ContentPart(file={"file_id": "f"}),
]
MESSAGES = [
    chat_pb2.ChatMessage(role=chat_pb2.ROLE_SYSTEM, text="a"),
    chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, name="n", parts=PARTS),
    chat_pb2.ChatMessage(role=chat_pb2.ROLE_ASSISTANT, tool_calls=[CALL], reasoning="r", refusal="x"),
    chat_pb2.ChatMessage(role=chat_pb2.ROLE_TOOL, text="3", tool_call_id="t"),
]
FORMATS = [
    {"text": {}},
    {"json_object": {}},
    {"json_schema": {"name": "n", "schema_json": "{}", "strict": True}},
    {"regex": "a+"},
    {"grammar": 'root ::= "a"'},
    {"choice": {"texts": ["a", "b"]}},
]


@pytest.mark.parametrize("shape", FORMATS, ids=[next(iter(shape)) for shape in FORMATS])
@pytest.mark.parametrize("choice", [{"mode": "TOOL_MODE_REQUIRED"}, {"function": "f"}])
def test_every_field_of_a_chat_is_one_of_vllm_s(shape: dict[str, Any], choice: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"tools": [TOOL], "tool_choice": choice, "parallel_tool_calls": True, "logprobs": True}
    fields |= {"top_logprobs": 1, "reasoning_effort": "REASONING_EFFORT_LOW", "response_format": shape}
    request = chat_pb2.ChatRequest(model="m", messages=MESSAGES, sampling=SAMPLING, **fields)
    assert {field.name for field, _ in request.ListFields()} == {*chat_pb2.ChatRequest.DESCRIPTOR.fields_by_name} - {
        "extra_json"
    }
    assert {field.name for field, _ in SAMPLING.ListFields()} == {*sampling_pb2.SamplingParams.DESCRIPTOR.fields_by_name}
    for stream in (False, True):
        body, _ = chat_body(request, stream=stream, default_model=None)
        assert is_vllm_s(body, "ChatCompletionRequest")
    assert not is_vllm_s(body.replace(b'"n":2', b'"n":"2"'), "ChatCompletionRequest")
    with pytest.raises(AssertionError, match="guided_regex"):
        is_vllm_s(body.replace(b'"n":2', b'"guided_regex":"a"'), "ChatCompletionRequest")


@pytest.mark.parametrize("prompt", [{"text": "a"}, {"token_ids": tokens_pb2.TokenIds(ids=[1])}])
def test_every_field_of_a_completion_is_one_of_vllm_s(prompt: dict[str, Any]) -> None:
    request = completion_pb2.CompletionRequest(model="m", sampling=SAMPLING, echo=True, logprobs=1, suffix="z", **prompt)
    body, _ = completion_body(request, stream=True, default_model=None)
    assert is_vllm_s(body, "CompletionRequest")


# -- answers

ANSWERS = [
    case
    for case in exchanges("vllm", "llama-server")
    if case.path in ("/v1/chat/completions", "/v1/completions")
    and case.status == 200
    and case.response_body[:1] in (b"{", b"d")
]
WHOLE = [case for case in ANSWERS if case.response_body.startswith(b"{")]
STREAMED = [case for case in ANSWERS if case.response_body.startswith(b"data: ")]


def values(entries: Any) -> list[tuple[str, float]]:
    return [(each.token, each.logprob) for each in entries]


def logprobs_of(choice: dict[str, Any]) -> list[tuple[str, float]]:
    """Token and value of what an engine says, in its form for chats or in the older one."""
    found = choice.get("logprobs") or {}
    if content := found.get("content"):
        return [(each["token"], each["logprob"]) for each in content]
    pairs = zip(found.get("tokens", ()), found.get("token_logprobs", ()), strict=True)
    return [(token, math.nan if value is None else value) for token, value in pairs]


def same(typed: Any, choice: dict[str, Any]) -> None:
    """What a typed choice has in common with the engine's."""
    assert (typed.index, typed.finish_reason_raw) == (choice["index"], choice["finish_reason"] or "")
    assert repr(values(typed.logprobs)) == repr(logprobs_of(choice))  # as text, in which NaN is NaN
    assert list(typed.token_ids) == (choice.get("token_ids") or [])


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.name)
def test_a_whole_answer_of_a_real_engine(case: Exchange) -> None:
    real = json.loads(case.response_body)
    chat = case.path.endswith("chat/completions")
    answer: Any = (chat_response if chat else completion_response)(case.response_body)
    assert (answer.id, answer.model, answer.create_time.seconds) == (real["id"], real["model"], real["created"])
    assert answer.usage.input_tokens == real["usage"]["prompt_tokens"]
    assert answer.usage.output_tokens == real["usage"]["completion_tokens"]
    for typed, choice in zip(answer.choices, real["choices"], strict=True):
        same(typed, choice)
        text = typed.message.text if chat else typed.text
        assert text == ((choice["message"].get("content") if chat else choice["text"]) or "")
        calls = (choice.get("message") or {}).get("tool_calls") or []
        if chat:
            assert [(call.name, call.arguments_json) for call in typed.message.tool_calls] == [
                (call["function"]["name"], call["function"]["arguments"]) for call in calls
            ]
        else:
            rows = choice.get("prompt_logprobs") or []
            assert [
                [(each.token_id, each.token, each.logprob, each.rank) for each in row.readings] for row in typed.prompt_logprobs
            ] == [
                [(int(number), each["decoded_token"], each["logprob"], each["rank"]) for number, each in (row or {}).items()]
                for row in rows
            ]


@pytest.mark.parametrize("case", STREAMED, ids=lambda case: case.name)
def test_a_stream_of_a_real_engine(case: Exchange) -> None:
    chat = case.path.endswith("chat/completions")
    messages = (chat_chunks if chat else completion_chunks)(case.response_body)
    chunks: list[Any] = [message.delta.chat if chat else message.delta.completion for message in messages]
    payloads = [event.removeprefix(b"data: ") for event in case.response_body.split(b"\n\n") if event.startswith(b"data: {")]
    real = [choice for payload in payloads for choice in json.loads(payload)["choices"]]
    found = [choice for chunk in chunks for choice in chunk.choices]
    for typed, choice in zip(found, real, strict=True):
        same(typed, choice)
        assert typed.text == ((choice["delta"].get("content") if chat else choice["text"]) or "")


def test_these_are_all_kinds_of_answers() -> None:
    assert (len(WHOLE) > 40, len(STREAMED) > 10) == (True, True)
    shown = [json.loads(case.response_body)["choices"][0] for case in WHOLE]
    assert any(choice.get("prompt_logprobs") for choice in shown)
    assert any(logprobs_of(choice) for choice in shown)
