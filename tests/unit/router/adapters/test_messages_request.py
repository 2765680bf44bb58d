import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.adapters.messages_request import DEFAULT_MAX_TOKENS, to_messages
from lexora_router.errors import InvalidRequest, UnsupportedByBackend

KEYS = sorted(
    {"messages", "tools", "tool_choice", "response_format", "stop", "temperature", "n", "metadata", "output_config"}
    | {"role", "content", "type", "text", "image_url", "url", "file", "file_data", "tool_calls", "function", "name"}
    | {"arguments", "thinking_blocks", "json_schema", "schema", "parameters", "reasoning_effort", "max_tokens", "user"}
)
HI = [{"role": "user", "content": "hi"}]


def translated(**fields: Any) -> dict[str, Any]:
    body = json.dumps({"model": "m", "messages": HI} | fields).encode()
    return dict(json.loads(to_messages(body)))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"max_tokens": DEFAULT_MAX_TOKENS}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 7}, {"max_tokens": 7}),
        ({"temperature": 0.3}, {"temperature": 0.3}),
        ({"temperature": 1.7}, {"temperature": 1.0}),
        ({"top_p": 0.5, "stream": True}, {"top_p": 0.5, "stream": True}),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["a", "b"]}, {"stop_sequences": ["a", "b"]}),
        ({"user": "ann"}, {"metadata": {"user_id": "ann"}}),
        ({"safety_identifier": "s"}, {"metadata": {"user_id": "s"}}),
        ({"metadata": {"user_id": "x", "more": "y"}}, {"metadata": {"user_id": "x"}}),
        ({"reasoning_effort": "minimal"}, {"output_config": {"effort": "low"}}),
        ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        ({"response_format": {"type": "text"}}, {}),
        ({"n": 1, "logprobs": False, "modalities": ["text"], "functions": None}, {}),
        # Tuning that has no counterpart is left out, and the engine's own fields go on.
        ({"seed": 1, "presence_penalty": 1, "logit_bias": {}, "stream_options": {"include_usage": True}, "priority": 9}, {}),
        ({"top_k": 4, "new_field": {"a": [1]}}, {"top_k": 4, "new_field": {"a": [1]}}),
    ],
)
def test_fields(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert translated(**fields) == {"model": "m", "messages": HI, "max_tokens": DEFAULT_MAX_TOKENS} | expected


def test_a_json_schema_joins_what_the_client_wrote_itself() -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    made = translated(response_format=form, reasoning_effort="high", output_config={"task_budget": 3})
    assert made["output_config"] == {"task_budget": 3, "effort": "high", "format": {"type": "json_schema", "schema": schema}}


FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
TOOL = {"type": "function", "function": FUNCTION}


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
        ({"tool_choice": "required", "parallel_tool_calls": False}, {"type": "any", "disable_parallel_tool_use": True}),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"type": "tool", "name": "f"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"parallel_tool_calls": True}, None),
    ],
)
def test_tools(fields: dict[str, Any], choice: dict[str, Any] | None) -> None:
    bare = {"type": "function", "function": {"name": "g", "strict": True}}
    theirs = {"type": "web_search_20250305", "name": "web_search"}
    made = translated(tools=[TOOL, bare, theirs], **fields)
    assert made["tools"] == [
        {"name": "f", "description": "d", "input_schema": FUNCTION["parameters"]},
        {"name": "g", "input_schema": {"type": "object", "properties": {}}, "strict": True},
        theirs,
    ]
    assert made.get("tool_choice") == choice


def test_a_conversation_with_tools_pictures_and_thoughts() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"n":18446744073709551617}'}}
    bare = {"id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "be brief"},
        {"role": "developer", "content": [{"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://h/x.png"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QQ=="}},
                {"type": "search_result", "source": "s"},
            ],
        },
        {"role": "assistant", "content": None, "thinking_blocks": [thought], "tool_calls": [call, bare]},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}]},
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "thanks"},
    ]
    made = translated(messages=messages)
    assert made["system"] == [
        {"type": "text", "text": "be brief"},
        {"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}},
    ]
    assert made["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
                {"type": "image", "source": {"type": "url", "url": "https://h/x.png"}},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "QQ=="},
                    "title": "a.pdf",
                },
                {"type": "search_result", "source": "s"},
            ],
        },
        {
            "role": "assistant",
            "content": [
                thought,
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"n": 18446744073709551617}},
                {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "one"},
                {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "two"}]},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "done"}]},
        {"role": "user", "content": "thanks"},
    ]


def said(**message: Any) -> dict[str, Any]:
    return {"messages": [message]}


def part(**fields: Any) -> dict[str, Any]:
    return said(role="user", content=[fields])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"guided_json": {}}, "guided_json"),
        ({"structured_outputs": {"choice": ["a"]}}, "structured_outputs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format"),
        ({"response_format": 3}, "response_format"),
        (part(type="input_audio", input_audio={}), "messages[0].content[0]"),
        (part(type="file", file={"file_id": "f"}), "messages[0].content[0].file"),
    ],
)
def test_what_cannot_be_had_is_refused_so_that_another_backend_may_be_asked(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedByBackend) as raised:
        translated(**fields)
    assert raised.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": {}}, "messages"),
        ({"tools": {}}, "tools"),
        ({"tools": [3]}, "tools[0]"),
        ({"tools": [{"type": "custom"}]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"reasoning_effort": []}, "reasoning_effort"),
        ({"output_config": 3, "reasoning_effort": "low"}, "output_config"),
        (said(role="function", content="x"), "messages[0].role"),
        ({"messages": ["x"]}, "messages[0].role"),
        (said(role="user", content={}), "messages[0].content"),
        (part(text="no type"), "messages[0].content[0]"),
        (part(type="image_url", image_url={"url": "ftp://h/x"}), "messages[0].content[0].image_url"),
        (part(type="image_url", image_url={}), "messages[0].content[0].image_url"),
        (said(role="assistant", tool_calls=[{"id": "c"}]), "messages[0].tool_calls[0].function"),
        (
            said(role="assistant", tool_calls=[{"function": {"name": "f", "arguments": "[1]"}}]),
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            said(role="assistant", tool_calls=[{"function": {"name": "f", "arguments": {"a": 1}}}]),
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_what_is_malformed_is_refused_by_its_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        translated(**fields)
    assert type(raised.value) is InvalidRequest
    assert raised.value.param == param


def test_depth_and_numbers_beyond_reason_are_refused_too() -> None:
    for value in (b"[" * 5000 + b"]" * 5000, b"9" * 5000):
        with pytest.raises(InvalidRequest):
            to_messages(b'{"messages":%b}' % value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(KEYS), below, max_size=4),
    max_leaves=12,
)
WORDS = st.sampled_from(["system", "user", "assistant", "tool", "text", "image_url", "file", "function", "json_schema", "none"])


@given(st.dictionaries(st.sampled_from(KEYS), VALUES | WORDS | st.lists(VALUES, max_size=3), max_size=6))
def test_whatever_a_client_writes_is_translated_or_refused(fields: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidRequest, UnsupportedByBackend):
        assert isinstance(json.loads(to_messages(json.dumps(fields).encode())), dict)
