import base64
import json
import math
from typing import Any

import pytest

from lexora.v1 import chat_pb2, completion_pb2, embed_pb2, sampling_pb2, tokens_pb2
from lexora_contract.operations import CHAT, COMPLETIONS, EMBEDDINGS
from lexora_router.edge.translate import chat_body, completion_body, embed_body
from lexora_router.errors import InvalidRequest
from lexora_router.payload.fields import Fields
from lexora_router.payload.inspect import inspect_json

USER = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, text="hi")
TOKENS = tokens_pb2.TokenIds


def checked(path: str, body: bytes, fields: Fields) -> dict[str, Any]:
    """The body; what is handed over beside it is what one would read in it."""
    assert fields == inspect_json(path, body)
    found: dict[str, Any] = json.loads(body)
    return found


def chat(*, stream: bool = False, default: str | None = "d", **fields: Any) -> dict[str, Any]:
    request = chat_pb2.ChatRequest(**{"messages": [USER]} | fields)
    return checked(CHAT, *chat_body(request, stream=stream, default_model=default))


def completion(**fields: Any) -> dict[str, Any]:
    request = completion_pb2.CompletionRequest(**{"model": "m"} | fields)
    return checked(COMPLETIONS, *completion_body(request, stream=False, default_model=None))


def embed(**fields: Any) -> dict[str, Any]:
    return checked(EMBEDDINGS, *embed_body(embed_pb2.EmbedRequest(**{"model": "m"} | fields), None))


def refused_param(call: Any, **fields: Any) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        call(**fields)
    return caught.value.param


# --- all


EXTRAS = {
    "user": "u",
    "safety_identifier": "s",
    "metadata": {"user_id": "x"},
    "prompt_cache_key": "k",
    "max_completion_tokens": "16",
    "max_output_tokens": 7,
    "n": 2.0,
    "priority": 3,
    "stream_options": {"include_usage": 1},
    "prompt": None,
}


@pytest.mark.parametrize("name", EXTRAS)
def test_what_is_handed_over_is_what_the_body_says(name: str):
    extra = json.dumps({name: EXTRAS[name]})
    sampling = sampling_pb2.SamplingParams(max_tokens=9, n=3)
    for stream in (False, True):
        chat(stream=stream, model="m", extra_json=extra, sampling=sampling)
    completion(text="x", extra_json=extra, sampling=sampling)
    completion(text="x", extra_json=extra)
    embed(texts={"values": ["x"]}, extra_json=extra)


@pytest.mark.parametrize("extra", ['{"n": []}', '{"model": 7}', '{"user": 7}', '{"stream_options": 7}', '{"priority": "high"}'])
def test_an_extra_field_of_the_wrong_type_is_named(extra: str):
    name = next(iter(json.loads(extra)))
    assert (
        refused_param(chat, stream=True, default=None, extra_json=extra, **({} if name == "model" else {"model": "m"})) == name
    )


# --- chat


def test_what_is_unset_is_left_out():
    assert chat(model="m") == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_stream_is_the_calls_choice():
    extra = '{"stream":true,"stream_options":{"include_usage":false}}'
    assert "stream" not in chat(extra_json=extra)
    assert "stream_options" not in chat(extra_json=extra)
    assert chat(stream=True)["stream"] is True
    assert chat(stream=True, extra_json=extra)["stream_options"] == {"include_usage": False}


def test_the_model_is_the_typed_one_else_the_extra_one_else_the_default():
    assert chat(model="m", extra_json='{"model":"e"}')["model"] == "m"
    assert chat(extra_json='{"model":"e"}')["model"] == "e"
    assert chat()["model"] == "d"
    assert refused_param(chat, default=None) == "model"
    assert refused_param(chat, default="") == "model"


def test_messages_of_every_kind():
    call = chat_pb2.ToolCall(id="c1", name="f", arguments_json='{"a": 1', index=0)
    messages = [
        chat_pb2.ChatMessage(role=chat_pb2.ROLE_SYSTEM, text="s"),
        chat_pb2.ChatMessage(role=chat_pb2.ROLE_DEVELOPER, text=""),
        chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, text="日本", name="ken"),
        chat_pb2.ChatMessage(role=chat_pb2.ROLE_ASSISTANT, tool_calls=[call], reasoning="hm", refusal="no"),
        chat_pb2.ChatMessage(role=chat_pb2.ROLE_TOOL, text="42", tool_call_id="c1"),
    ]
    assert chat(messages=messages)["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "developer", "content": ""},
        {"role": "user", "content": "日本", "name": "ken"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1'}}],
            "reasoning": "hm",
            "reasoning_content": "hm",
            "refusal": "no",
        },
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
    ]


def test_parts_win_over_text_and_images_travel_inline():
    image = chat_pb2.ImagePart
    parts = [
        chat_pb2.ContentPart(text="look"),
        chat_pb2.ContentPart(audio={"data": b"wave", "format": "wav"}),
        chat_pb2.ContentPart(file={"data": b"pdf", "media_type": "application/pdf", "filename": "a.pdf"}),
        chat_pb2.ContentPart(file={"file_id": "file-1"}),
        chat_pb2.ContentPart(image=image(url="https://x/y.png", detail="IMAGE_DETAIL_LOW")),
        chat_pb2.ContentPart(image=image(data=b"\x89PNG\x00", media_type="image/png")),
    ]
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, text="ignored", parts=parts)
    inline = "data:image/png;base64," + base64.b64encode(b"\x89PNG\x00").decode()
    assert chat(messages=[message])["messages"][0]["content"] == [
        {"type": "text", "text": "look"},
        {"type": "input_audio", "input_audio": {"data": "d2F2ZQ==", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,cGRm", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": inline}},
    ]


def test_tools_and_their_choice():
    schema = '{"type": "object",  "x": 9007199254740993}'
    tools = [
        chat_pb2.Tool(function=chat_pb2.FunctionTool(name="f", description="d", parameters_json=schema, strict=False)),
        chat_pb2.Tool(function=chat_pb2.FunctionTool(name="g")),
    ]
    body = chat(tools=tools, tool_choice=chat_pb2.ToolChoice(function="f"), parallel_tool_calls=False)
    assert body["tools"] == [
        {
            "type": "function",
            "function": {"name": "f", "description": "d", "parameters": json.loads(schema), "strict": False},
        },
        {"type": "function", "function": {"name": "g"}},
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert body["parallel_tool_calls"] is False
    assert chat(tool_choice=chat_pb2.ToolChoice(mode="TOOL_MODE_REQUIRED"))["tool_choice"] == "required"
    assert "tool_choice" not in chat(tool_choice=chat_pb2.ToolChoice())
    raw, _ = chat_body(chat_pb2.ChatRequest(messages=[USER], tools=tools), stream=False, default_model="d")
    assert schema.encode() in raw


def test_response_formats():
    schema = chat_pb2.JsonSchema(name="s", schema_json='{"type":"object"}', strict=True)
    shape = chat_pb2.ResponseFormat
    assert chat(response_format=shape(text={}))["response_format"] == {"type": "text"}
    assert chat(response_format=shape(json_object={}))["response_format"] == {"type": "json_object"}
    assert chat(response_format=shape(json_schema=schema))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True},
    }
    assert "response_format" not in chat(response_format=shape())
    for own, sent in (("regex", "[0-9]+"), ("grammar", 'root ::= "a"')):
        assert chat(response_format=shape(**{own: sent}))["structured_outputs"] == {own: sent}
    assert chat(response_format=shape(choice={"texts": ["a", "b"]}))["structured_outputs"] == {"choice": ["a", "b"]}
    assert "response_format" not in chat(response_format=shape())


def test_sampling_sends_what_is_set_even_when_it_is_zero():
    sampling = sampling_pb2.SamplingParams(
        max_tokens=0,
        temperature=0,
        top_p=0.95,
        top_k=-1,
        min_p=0.05,
        stop=["a", "b"],
        seed=9007199254740993,
        n=2,
        presence_penalty=-0.5,
        frequency_penalty=0.0,
        repetition_penalty=1.1,
        min_tokens=3,
        stop_token_ids=[1, 2],
        thinking_token_budget=9,
        return_token_ids=True,
        prompt_logprobs=0,
        logit_bias={50256: -100, 7: 0.5},
    )
    body = chat(model="m", sampling=sampling)
    del body["messages"], body["model"]
    assert body == {
        "max_tokens": 0,
        "temperature": 0.0,
        "top_p": 0.95,
        "top_k": -1,
        "min_p": 0.05,
        "stop": ["a", "b"],
        "seed": 9007199254740993,
        "n": 2,
        "presence_penalty": -0.5,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.1,
        "min_tokens": 3,
        "stop_token_ids": [1, 2],
        "thinking_token_budget": 9,
        "return_token_ids": True,
        "prompt_logprobs": 0,
        "logit_bias": {"7": 0.5, "50256": -100.0},
    }


def test_logprobs_and_effort():
    body = chat(logprobs=True, top_logprobs=0, reasoning_effort="REASONING_EFFORT_LOW")
    assert (body["logprobs"], body["top_logprobs"], body["reasoning_effort"]) == (True, 0, "low")


def test_extra_fields_keep_their_bytes_and_come_first():
    extra = '{"temperature": 0.1, "big": 123456789012345678901234567890, "nul": null, "f": 1.10, "max_tokens": 5}'
    request = chat_pb2.ChatRequest(
        model="m", messages=[USER], extra_json=extra, sampling=sampling_pb2.SamplingParams(temperature=0.5)
    )
    body, _ = chat_body(request, stream=True, default_model=None)
    assert body == (
        b'{"temperature":0.5,"big":123456789012345678901234567890,"nul":null,"f":1.10,"max_tokens":5,'
        b'"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}'
    )


@pytest.mark.parametrize("bad", ["{", "[]", "3", "null", '{"a":NaN}', "{}x", '{"a":' + "[" * 10_000 + "]" * 10_000 + "}"])
def test_bad_embedded_json_names_its_field(bad: str):
    schema = chat_pb2.ResponseFormat(json_schema=chat_pb2.JsonSchema(name="s", schema_json=bad))
    tools = [
        chat_pb2.Tool(function=chat_pb2.FunctionTool(name="a")),
        chat_pb2.Tool(function=chat_pb2.FunctionTool(name="b", parameters_json=bad)),
    ]
    assert refused_param(chat, extra_json=bad) == "chat.extra_json"
    assert refused_param(chat, tools=tools) == "chat.tools[1].function.parameters_json"
    assert refused_param(chat, response_format=schema) == "chat.response_format.json_schema.schema_json"
    assert refused_param(completion, text="x", extra_json=bad) == "completion.extra_json"
    assert refused_param(embed, texts={"values": ["x"]}, extra_json=bad) == "extra_json"


def test_extra_fields_have_a_bound_in_bytes():
    inside = '{"a":"' + "x" * ((1 << 20) - 8) + '"}'
    assert len(chat(extra_json=inside)["a"]) == (1 << 20) - 8
    assert refused_param(chat, extra_json=inside + " ") == "chat.extra_json"
    assert refused_param(chat, extra_json='{"a":"' + "字" * 400_000 + '"}') == "chat.extra_json"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [chat_pb2.ChatMessage(text="x")]}, "chat.messages[0].role"),
        ({"messages": [USER, chat_pb2.ChatMessage(role=99, text="x")]}, "chat.messages[1].role"),
        (
            {"messages": [chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, parts=[chat_pb2.ContentPart()])]},
            "chat.messages[0].parts[0]",
        ),
        ({"tools": [chat_pb2.Tool()]}, "chat.tools[0]"),
        ({"tools": [chat_pb2.Tool(function={})]}, "chat.tools[0].function.name"),
        ({"reasoning_effort": 99}, "chat.reasoning_effort"),
        ({"response_format": chat_pb2.ResponseFormat(choice={})}, "chat.response_format.choice.texts"),
        ({"tool_choice": chat_pb2.ToolChoice(mode=99)}, "chat.tool_choice.mode"),
        (
            {"response_format": chat_pb2.ResponseFormat(json_schema=chat_pb2.JsonSchema(schema_json="{}"))},
            "chat.response_format.json_schema.name",
        ),
        (
            {"response_format": chat_pb2.ResponseFormat(json_schema=chat_pb2.JsonSchema(name="s"))},
            "chat.response_format.json_schema.schema_json",
        ),
        ({"sampling": sampling_pb2.SamplingParams(temperature=math.nan)}, "chat.sampling.temperature"),
        ({"sampling": sampling_pb2.SamplingParams(logit_bias={3: math.inf})}, "chat.sampling.logit_bias"),
    ],
)
def test_what_a_chat_may_not_hold(fields: dict[str, Any], param: str):
    assert refused_param(chat, **fields) == param


@pytest.mark.parametrize(
    ("image", "param"),
    [
        (chat_pb2.ImagePart(), "chat.messages[0].parts[0].image"),
        (chat_pb2.ImagePart(data=b"x"), "chat.messages[0].parts[0].image.media_type"),
        (chat_pb2.ImagePart(data=b"x", media_type='a/b;"'), "chat.messages[0].parts[0].image.media_type"),
    ],
)
def test_images_must_be_whole(image: chat_pb2.ImagePart, param: str):
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, parts=[chat_pb2.ContentPart(image=image)])
    assert refused_param(chat, messages=[message]) == param


# --- completion


def test_completion_of_text_and_of_token_ids():
    assert completion(text="") == {"model": "m", "prompt": ""}
    assert completion(token_ids=TOKENS(ids=[1, 2])) == {"model": "m", "prompt": [1, 2]}
    body = completion(
        text="x", echo=True, logprobs=0, suffix="s", sampling=sampling_pb2.SamplingParams(max_tokens=3), extra_json='{"k":null}'
    )
    assert body == {"k": None, "model": "m", "prompt": "x", "max_tokens": 3, "echo": True, "logprobs": 0, "suffix": "s"}


def test_completion_streamed():
    request = completion_pb2.CompletionRequest(text="x")
    assert json.loads(completion_body(request, stream=True, default_model="d")[0])["stream"] is True


def test_what_a_completion_may_not_hold():
    assert refused_param(completion) == "prompt"
    assert refused_param(completion, text="x", model="") == "model"
    sampling = sampling_pb2.SamplingParams(top_p=-math.inf)
    assert refused_param(completion, text="x", sampling=sampling) == "completion.sampling.top_p"


# --- embed


def test_embed():
    assert embed(texts={"values": ["a", "b"]}, dimensions=8) == {"model": "m", "input": ["a", "b"], "dimensions": 8}
    assert embed(token_ids={"values": [TOKENS(ids=[1]), TOKENS(ids=[2, 3])]}, extra_json='{"encoding_format":"base64"}') == {
        "encoding_format": "base64",
        "model": "m",
        "input": [[1], [2, 3]],
    }


def test_what_an_embed_may_not_hold():
    assert refused_param(embed) == "texts"
    assert refused_param(embed, token_ids={"values": []}) == "texts"
    assert refused_param(embed, texts={"values": ["a"]}, model="") == "model"
