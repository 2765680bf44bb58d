"""The typed form of a chat, unary: what reaches the engine, and what comes back."""

import json
from typing import Any

import pytest

from lexora.v1 import chat_pb2, router_pb2, sampling_pb2, tokens_pb2
from tests.contract.messages import COUNTED, ID, USAGE, answer, chat, encoded, receipt, unary
from tests.support.links import ALL_WAYS, Link
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import reply

USER = {"role": "user", "content": "Hi"}


async def asked(link: Link, engine: LoopEngine, **fields: Any) -> dict[str, Any]:
    """The body that the engine got for a chat with these fields."""
    engine.answer(reply(answer()))
    assert (await link.generate(unary(chat=chat(**fields)))).only.chat.choices[0].message.text == "Hello"
    return dict(json.loads(engine.requests[-1].body))


async def answered(link: Link, engine: LoopEngine, body: bytes, **fields: Any) -> chat_pb2.ChatResponse:
    """The typed form of this answer."""
    engine.answer(reply(body))
    outcome = await link.generate(unary(chat=chat(**fields)))
    assert isinstance(outcome.only.chat, chat_pb2.ChatResponse)
    return outcome.only.chat


@pytest.mark.parametrize("link", ALL_WAYS, indirect=True)
async def test_a_chat(link: Link, engine: LoopEngine) -> None:
    engine.answer(reply(answer()))
    outcome = await link.generate(unary(chat=chat()))
    assert outcome.only == router_pb2.GenerateResponse(
        receipt=receipt(engine.url, usage=COUNTED),
        chat=chat_pb2.ChatResponse(
            id="c1",
            model="m",
            create_time={"seconds": 1},
            choices=[
                chat_pb2.ChatChoice(
                    message=chat_pb2.ChatMessage(role=chat_pb2.ROLE_ASSISTANT, text="Hello"),
                    finish_reason=tokens_pb2.FINISH_REASON_STOP,
                    finish_reason_raw="stop",
                )
            ],
            usage=COUNTED,
        ),
    )
    (request,) = engine.requests
    assert (request.method, request.target) == ("POST", "/v1/chat/completions")
    assert json.loads(request.body) == {"model": "m", "messages": [USER]}
    assert request.header("x-request-id") == ID


async def test_sampling_and_extra_fields_reach_the_engine(link: Link, engine: LoopEngine) -> None:
    sampling = sampling_pb2.SamplingParams(max_tokens=7, temperature=0, stop=["\n"], seed=9007199254740993, logit_bias={11: -1})
    body = await asked(link, engine, sampling=sampling, extra_json='{"guided":null,"big":9007199254740993,"max_tokens":1}')
    assert body == {
        "model": "m",
        "messages": [USER],
        "max_tokens": 7,
        "temperature": 0,
        "stop": ["\n"],
        "seed": 9007199254740993,
        "logit_bias": {"11": -1},
        "guided": None,
        "big": 9007199254740993,
    }


async def test_images_by_address_and_inline(link: Link, engine: LoopEngine) -> None:
    parts = [
        chat_pb2.ContentPart(text="What is this?"),
        chat_pb2.ContentPart(image=chat_pb2.ImagePart(url="https://example.com/a.png", detail="IMAGE_DETAIL_LOW")),
        chat_pb2.ContentPart(image=chat_pb2.ImagePart(data=b"\x89PNG", media_type="image/png")),
    ]
    body = await asked(link, engine, messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, parts=parts)])
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
    ]


async def test_tools_there_and_back(link: Link, engine: LoopEngine) -> None:
    call = {"id": "t1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    engine.answer(reply(answer(content=None, tool_calls=[call]).replace(b'"stop"', b'"tool_calls"')))
    earlier = chat_pb2.ChatMessage(role=chat_pb2.ROLE_ASSISTANT, tool_calls=[chat_pb2.ToolCall(id="t0", name="add")])
    result = chat_pb2.ChatMessage(role=chat_pb2.ROLE_TOOL, text="3", tool_call_id="t0")
    tool = chat_pb2.Tool(
        function={"name": "add", "description": "Adds.", "parameters_json": '{"type":"object"}', "strict": True}
    )
    outcome = await link.generate(
        unary(
            chat=chat(
                messages=[earlier, result],
                tools=[tool],
                tool_choice=chat_pb2.ToolChoice(function="add"),
                parallel_tool_calls=False,
            )
        )
    )
    body = json.loads(engine.requests[0].body)
    assert body["messages"] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "t0", "type": "function", "function": {"name": "add", "arguments": ""}}],
        },
        {"role": "tool", "content": "3", "tool_call_id": "t0"},
    ]
    function = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}, "strict": True}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert body["parallel_tool_calls"] is False
    (choice,) = outcome.only.chat.choices
    assert choice.message == chat_pb2.ChatMessage(
        role=chat_pb2.ROLE_ASSISTANT, tool_calls=[chat_pb2.ToolCall(id="t1", name="add", arguments_json='{"a":1}')]
    )
    assert choice.finish_reason == tokens_pb2.FINISH_REASON_TOOL_CALLS


async def test_a_null_content_is_no_empty_one(link: Link, engine: LoopEngine) -> None:
    empty = (await answered(link, engine, answer(content=""))).choices[0].message
    null = (await answered(link, engine, answer(content=None, refusal="No."))).choices[0].message
    assert empty.HasField("text")
    assert not null.HasField("text")
    assert null.refusal == "No."
    body = await asked(link, engine, messages=[null, empty])
    assert [message["content"] for message in body["messages"]] == [None, ""]


async def test_a_json_schema(link: Link, engine: LoopEngine) -> None:
    schema = chat_pb2.JsonSchema(name="n", schema_json='{"type":"object","x":1.0}', strict=True)
    body = await asked(link, engine, response_format=chat_pb2.ResponseFormat(json_schema=schema))
    shape = {"name": "n", "schema": {"type": "object", "x": 1.0}, "strict": True}
    assert body["response_format"] == {"type": "json_schema", "json_schema": shape}


async def test_log_probabilities(link: Link, engine: LoopEngine) -> None:
    half = {"token": "\ufffd", "logprob": -0.5, "bytes": [227, 129], "top_logprobs": []}
    token = {"token": "a", "logprob": -0.25, "bytes": [97], "top_logprobs": [half]}
    choice = {"index": 0, "message": {"role": "assistant", "content": "a"}, "logprobs": {"content": [token]}}
    found = await answered(link, engine, encoded({"id": "c1", "choices": [choice]}), logprobs=True, top_logprobs=1)
    assert list(found.choices[0].logprobs) == [
        tokens_pb2.TokenLogprob(
            token="a",
            logprob=-0.25,
            bytes=b"a",
            top=[tokens_pb2.TokenLogprob(token="\ufffd", logprob=-0.5, bytes=b"\xe3\x81")],
        )
    ]
    body = json.loads(engine.requests[0].body)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 1)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
async def test_reasoning_by_both_names(link: Link, engine: LoopEngine, name: str) -> None:
    found = await answered(link, engine, answer(**{name: "Hm."}), reasoning_effort="REASONING_EFFORT_LOW")
    assert found.choices[0].message.reasoning == "Hm."
    assert json.loads(engine.requests[0].body)["reasoning_effort"] == "low"


async def test_several_answers_and_every_count(link: Link, engine: LoopEngine) -> None:
    choices = [
        {"index": place, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
        for place, (text, reason) in enumerate([("a", "length"), ("b", "content_filter"), ("c", "moon")])
    ]
    usage = USAGE | {"prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 1}}
    body = encoded({"id": "c1", "choices": choices, "usage": usage, "system_fingerprint": "fp"})
    found = await answered(link, engine, body, sampling=sampling_pb2.SamplingParams(n=3))
    assert [(c.index, c.message.text, c.finish_reason, c.finish_reason_raw) for c in found.choices] == [
        (0, "a", tokens_pb2.FINISH_REASON_LENGTH, "length"),
        (1, "b", tokens_pb2.FINISH_REASON_CONTENT_FILTER, "content_filter"),
        (2, "c", tokens_pb2.FINISH_REASON_OTHER, "moon"),
    ]
    assert found.usage == tokens_pb2.Usage(input_tokens=5, output_tokens=2, cached_tokens=3, reasoning_tokens=1)
    assert found.system_fingerprint == "fp"


@pytest.mark.parametrize("backend", [{"model_mapping": {"m": "org/m-7b"}}])
async def test_no_model_means_the_default_one_and_mapping_applies(link: Link, engine: LoopEngine) -> None:
    engine.answer(reply(answer()))
    outcome = await link.generate(unary(chat=chat(model="")))
    assert outcome.only.receipt == receipt(engine.url, model="org/m-7b", usage=COUNTED)
    assert json.loads(engine.requests[0].body)["model"] == "org/m-7b"
