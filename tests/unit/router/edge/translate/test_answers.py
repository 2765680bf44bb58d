import array
import base64
import json
import math
import timeit
from typing import Any

import pytest

from lexora.v1 import chat_pb2, completion_pb2, tokens_pb2
from lexora_contract.answer import Usage
from lexora_contract.messages import usage_message
from lexora_router.edge.translate import (
    chat_chunks,
    chat_response,
    completion_chunks,
    completion_response,
    embed_response,
)
from lexora_router.errors import UpstreamInvalid

VLLM_CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1795375801,
    "model": "tiny-chat",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "text",
                "refusal": None,
                "annotations": None,
                "audio": None,
                "function_call": None,
                "reasoning": None,
            },
            "logprobs": None,
            "finish_reason": "length",
            "stop_reason": None,
            "token_ids": None,
        }
    ],
    "service_tier": None,
    "system_fingerprint": "vllm-0.32.0",
    "usage": {"prompt_tokens": 16, "total_tokens": 32, "completion_tokens": 16, "prompt_tokens_details": None},
    "prompt_logprobs": None,
    "kv_transfer_params": None,
}


def message(**fields: Any) -> chat_pb2.ChatMessage:
    body = json.dumps({"choices": [{"message": {"role": "assistant"} | fields}]}).encode()
    return chat_response(body).choices[0].message


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(**fields: Any) -> bytes:
    return event(id="c", choices=[{"index": 0, "delta": fields, "finish_reason": None}])


def chats(frames: bytes) -> list[chat_pb2.ChatChunk]:
    return [message.delta.chat for message in chat_chunks(frames)]


def completions(frames: bytes) -> list[completion_pb2.CompletionChunk]:
    return [message.delta.completion for message in completion_chunks(frames)]


# --- whole chats


def test_a_whole_answer():
    answer = chat_response(json.dumps(VLLM_CHAT).encode())
    assert (answer.id, answer.model, answer.create_time.seconds) == ("chatcmpl-1", "tiny-chat", 1795375801)
    assert answer.system_fingerprint == "vllm-0.32.0"
    assert answer.usage == tokens_pb2.Usage(input_tokens=16, output_tokens=16)
    (choice,) = answer.choices
    assert (choice.index, choice.message.role, choice.message.text) == (0, chat_pb2.ROLE_ASSISTANT, "text")
    assert (choice.finish_reason, choice.finish_reason_raw) == (tokens_pb2.FINISH_REASON_LENGTH, "length")
    assert not choice.message.HasField("reasoning")
    assert not choice.message.HasField("refusal")


def test_null_content_stays_unset_and_empty_content_is_set():
    assert not message(content=None).HasField("text")
    assert not message().HasField("text")
    assert message(content="").HasField("text")


@pytest.mark.parametrize("body", [b"{}", b'{"choices":null,"usage":null}', b'{"choices":[null]}', b'{"error":null}'])
def test_nothing_is_required(body: bytes):
    answer = chat_response(body)
    assert not answer.choices
    assert not answer.HasField("usage")


def test_nulls_anywhere():
    nulls = dict.fromkeys(("index", "message", "finish_reason", "logprobs"))
    assert chat_response(json.dumps({"choices": [nulls, nulls]}).encode()).choices[1].index == 1
    calls = [None, dict.fromkeys(("id", "function", "index")), {"function": {"name": None, "arguments": None}}]
    found = message(content=None, tool_calls=calls, role=None)
    assert [call.index for call in found.tool_calls] == [1, 2]
    assert found.role == chat_pb2.ROLE_UNSPECIFIED


def test_reasoning_under_both_names():
    assert message(reasoning="r").reasoning == "r"
    assert message(reasoning=None, reasoning_content="c").reasoning == "c"
    assert message(reasoning="r", reasoning_content="c").reasoning == "r"
    assert message(reasoning_content="").HasField("reasoning")


def test_content_in_parts():
    parts = [
        {"type": "text", "text": "a"},
        None,
        {"type": "image_url", "image_url": {"url": "u", "detail": "low"}},
        {"type": "image_url", "image_url": "v"},
        {"type": "odd"},
    ]
    found = message(content=parts)
    assert not found.HasField("text")
    image = chat_pb2.ImagePart
    assert list(found.parts) == [
        chat_pb2.ContentPart(text="a"),
        chat_pb2.ContentPart(image=image(url="u", detail="IMAGE_DETAIL_LOW")),
        chat_pb2.ContentPart(image=image(url="v")),
    ]


def test_tool_calls():
    calls = [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":'}},
        {"id": "2", "type": "function", "function": {"name": "g", "arguments": {"b": 1}}},
    ]
    assert list(message(content=None, tool_calls=calls).tool_calls) == [
        chat_pb2.ToolCall(id="1", name="f", arguments_json='{"a":', index=0),
        chat_pb2.ToolCall(id="2", name="g", arguments_json='{"b":1}', index=1),
    ]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", tokens_pb2.FINISH_REASON_STOP),
        ("length", tokens_pb2.FINISH_REASON_LENGTH),
        ("tool_calls", tokens_pb2.FINISH_REASON_TOOL_CALLS),
        ("function_call", tokens_pb2.FINISH_REASON_TOOL_CALLS),
        ("content_filter", tokens_pb2.FINISH_REASON_CONTENT_FILTER),
        ("abort", tokens_pb2.FINISH_REASON_OTHER),
        (None, tokens_pb2.FINISH_REASON_UNSPECIFIED),
    ],
)
def test_finish_reasons(word: str | None, reason: int):
    body = json.dumps({"choices": [{"finish_reason": word, "message": None}]}).encode()
    (choice,) = chat_response(body).choices
    assert (choice.finish_reason, choice.finish_reason_raw) == (reason, word or "")
    (chunk,) = chats(b"data: " + body + b"\n\n")
    assert (chunk.choices[0].finish_reason, chunk.choices[0].finish_reason_raw) == (reason, word or "")


def test_numbers_that_json_has_no_word_for():
    body = b'\xef\xbb\xbf{"choices":[{"message":{"content":"NaN"},"logprobs":{"content":[{"token":"a","logprob":-Infinity}]}}]}'
    choice = chat_response(body).choices[0]
    assert choice.message.text == "NaN"
    assert math.isnan(choice.logprobs[0].logprob)


def test_logprobs():
    top = {"token": "b", "logprob": -2, "bytes": None}
    content = [{"token": "\ufffd", "logprob": -1.5, "bytes": [227, 129], "top_logprobs": [top], "id": 7}]
    body = {"choices": [{"message": {}, "logprobs": {"content": content, "refusal": None}}]}
    (token,) = chat_response(json.dumps(body).encode()).choices[0].logprobs
    assert (token.token, token.logprob, token.bytes) == ("\ufffd", -1.5, b"\xe3\x81")
    assert list(token.top) == [tokens_pb2.TokenLogprob(token="b", logprob=-2)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"model":"\xff"}',
        b'{"usage":{"prompt_tokens":"many"}}',
        b'{"error":{"message":"no"}}',
        b'{"choices":[],"data":[],"error":"no"}',
        b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    ],
)
@pytest.mark.parametrize("read", [chat_response, completion_response, embed_response])
def test_what_is_no_answer(read: Any, body: bytes):
    with pytest.raises(UpstreamInvalid):
        read(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices":{}}',
        b'{"choices":[{"message":{"content":3}}]}',
        b'{"choices":[{"index":3000000000}]}',
        b'{"choices":[{"logprobs":{"content":[{"bytes":[256]}]}}]}',
        b'{"created":1e300}',
    ],
)
def test_what_is_no_chat(body: bytes):
    with pytest.raises(UpstreamInvalid):
        chat_response(body)


# --- streams of chats


def test_several_events_in_one_call_with_all_kinds_of_noise():
    frames = (
        b": ping\r\n\r\n"
        + delta(role="assistant", content="").replace(b"\n\n", b"\r\n\r\n")
        + b"event: message\nid: 3\n"
        + delta(content="あ")
        + b'data:{"choices":[{"index":1,\ndata:"delta":{"reasoning":"r"}}]}\n\n'
        + event(choices=[], usage={"prompt_tokens": 1})
        + event(usage=None)
        + b"data: [DONE]\n\n"
    )
    first, second, third = chats(frames)
    assert (first.id, first.choices[0].role, first.choices[0].text) == ("c", chat_pb2.ROLE_ASSISTANT, "")
    assert second.choices[0].text == "あ"
    assert (third.choices[0].index, third.choices[0].reasoning) == (1, "r")


@pytest.mark.parametrize("frames", [b"", b"\n\n", b": c\n\n", b"data: [DONE]\r\n\r\n", b"data:\n\n", b"event: x\n\n"])
def test_events_without_a_chunk(frames: bytes):
    assert chats(frames) == []
    assert completions(frames) == []


def test_an_event_may_carry_the_last_piece_and_usage():
    frames = event(
        id="c",
        model="m",
        created=5,
        choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}],
        usage={"prompt_tokens": 1, "completion_tokens": 2},
    )
    (chunk,) = chats(frames)
    assert (chunk.model, chunk.create_time.seconds, chunk.choices[0].finish_reason_raw) == ("m", 5, "stop")


def test_deltas_of_every_kind():
    frames = (
        delta(content=None, reasoning_content="t")
        + delta(refusal="no")
        + delta(tool_calls=[{"index": 1, "id": "i", "function": {"name": "f", "arguments": ""}}])
        + delta(tool_calls=[{"index": 1, "function": {"arguments": '{"'}}])
        + delta(content=[{"type": "text", "text": "a"}, {"type": "x"}, {"type": "text", "text": "b"}])
        + event(choices=[{"delta": None, "logprobs": {"content": [{"token": "x", "logprob": -1}]}}])
    )
    thought, refusal, opening, more, parts, logs = (chunk.choices[0] for chunk in chats(frames))
    assert (thought.text, thought.reasoning) == ("", "t")
    assert refusal.refusal == "no"
    assert list(opening.tool_calls) == [chat_pb2.ToolCall(id="i", name="f", index=1)]
    assert list(more.tool_calls) == [chat_pb2.ToolCall(arguments_json='{"', index=1)]
    assert parts.text == "ab"
    assert list(logs.logprobs) == [tokens_pb2.TokenLogprob(token="x", logprob=-1)]


@pytest.mark.parametrize("read", [chats, completions])
@pytest.mark.parametrize("data", [b"{", b"oops", b"[1]", b'{"choices":3}', b'{"error":{"message":"died"}}', b'{"id":"\xff"}'])
def test_bad_events(read: Any, data: bytes):
    with pytest.raises(UpstreamInvalid):
        read(delta() + b"data: " + data + b"\n\n")


def test_a_chunk_is_cheap():
    frames = delta(content="HAVE")
    mine = min(timeit.repeat(lambda: chat_chunks(frames), number=200, repeat=5))
    plain = min(timeit.repeat(lambda: json.loads(frames[6:]), number=200, repeat=5))
    assert mine < 10 * plain  # about twice; the bound only catches a blunder


# --- completions


def test_completion():
    body = {
        "id": "cmpl-1",
        "created": 5.0,
        "model": "m",
        "system_fingerprint": "fp",
        "choices": [
            {"index": 0, "text": "a", "finish_reason": "stop", "logprobs": None},
            {"index": 1, "text": None, "finish_reason": None},
        ],
        "usage": {"prompt_tokens": 2, "completion_tokens": 8},
    }
    answer = completion_response(json.dumps(body).encode())
    assert (answer.id, answer.create_time.seconds, answer.model, answer.system_fingerprint) == ("cmpl-1", 5, "m", "fp")
    assert [(c.index, c.text, c.finish_reason_raw) for c in answer.choices] == [(0, "a", "stop"), (1, "", "")]
    assert answer.usage.output_tokens == 8
    (chunk,) = completions(b"data: " + json.dumps(body).encode() + b"\n\ndata: [DONE]\n\n")
    assert [(c.index, c.text, c.finish_reason) for c in chunk.choices] == [(0, "a", tokens_pb2.FINISH_REASON_STOP), (1, "", 0)]
    assert completions(event(choices=[], usage={})) == []


def logprobs_of(found: dict[str, Any]) -> list[tokens_pb2.TokenLogprob]:
    body = json.dumps({"choices": [{"text": "", "logprobs": found}]}).encode()
    return list(completion_response(body).choices[0].logprobs)


def test_completion_logprobs():
    first, second = logprobs_of(
        {
            "text_offset": [0, 6],
            "token_logprobs": [None, -7.5],
            "tokens": ["import", " os"],
            "top_logprobs": [None, {" os": -7.5, "minator": -7.1}],
        }
    )
    assert first.token == "import"
    assert math.isnan(first.logprob)
    assert not first.top
    assert (second.token, second.logprob) == (" os", -7.5)
    assert [(other.token, other.logprob) for other in second.top] == [(" os", -7.5), ("minator", -7.1)]
    assert [t.token for t in logprobs_of({"tokens": ["a", None]})] == ["a", ""]
    chat_form = [{"id": 825, "token": "by", "bytes": [98, 121], "logprob": -7.2, "top_logprobs": []}]
    assert logprobs_of({"content": chat_form}) == [tokens_pb2.TokenLogprob(token="by", logprob=-7.2, bytes=b"by")]


# --- embeddings


def test_embeddings_as_numbers_and_as_base64_in_the_order_of_inputs():
    vector = [0.5, -0.25, 3.0]
    packed = array.array("f", vector)
    text = base64.b64encode(packed.tobytes()).decode()
    body = {
        "model": "e",
        "data": [{"index": 1, "embedding": text}, {"index": 0, "embedding": vector}, {"index": 2, "embedding": None}, None],
        "usage": {"prompt_tokens": 3, "total_tokens": 3, "completion_tokens": 0},
    }
    answer = embed_response(json.dumps(body).encode())
    assert answer.model == "e"
    assert [(item.index, list(item.values)) for item in answer.embeddings] == [(0, vector), (1, vector), (2, [])]
    assert answer.usage == tokens_pb2.Usage(input_tokens=3)
    assert not answer.HasField("receipt")
    assert not embed_response(b"{}").embeddings


@pytest.mark.parametrize("text", ["!!!!", "AAA", "AAAA", "é"])
def test_embeddings_that_are_none(text: str):
    with pytest.raises(UpstreamInvalid):
        embed_response(json.dumps({"data": [{"embedding": text}]}).encode())


def test_usage_message():
    assert usage_message(None) is None
    assert usage_message(Usage(1, 2, 3, 4)) == tokens_pb2.Usage(
        input_tokens=1, output_tokens=2, cached_tokens=3, reasoning_tokens=4
    )


def test_what_vllm_says_of_tokens():
    body = {
        "prompt_token_ids": [1, 2],
        "prompt_logprobs": [None, {"785": {"logprob": -0.5, "rank": 1, "decoded_token": "The"}, "x": {"rank": "y"}}],
        "choices": [{"message": {"content": "a"}, "stop_reason": "END", "token_ids": [3, 4]}],
    }
    answer = chat_response(json.dumps(body).encode())
    [choice] = answer.choices
    assert (choice.matched_stop.text, list(choice.token_ids), list(answer.prompt_token_ids)) == ("END", [3, 4], [1, 2])
    first, second = answer.prompt_logprobs
    assert len(first.readings) == 0
    known, unknown = second.readings
    assert (known.token, known.rank, known.token_id, known.logprob) == ("The", 1, 785, -0.5)
    assert math.isnan(unknown.logprob)
    event = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": 128009, "token_ids": [7]}]}
    [chunk] = chats(b"data: " + json.dumps(event).encode() + b"\n\n")
    assert (chunk.choices[0].matched_stop.token_id, list(chunk.choices[0].token_ids)) == (128009, [7])
    odd = {
        "choices": [{"text": "a", "stop_reason": {"x": 1}, "token_ids": ["a"], "prompt_logprobs": 7, "prompt_token_ids": [-1]}]
    }
    [choice] = completion_response(json.dumps(odd).encode()).choices
    assert (choice.HasField("matched_stop"), list(choice.token_ids), list(choice.prompt_logprobs)) == (False, [], [])
