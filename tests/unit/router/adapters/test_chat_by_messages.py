import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_contract.answer import Head, Reply
from lexora_router.adapters import chat_by_messages
from lexora_router.adapters.chat_by_messages import ChatByMessages
from lexora_router.errors import UpstreamInvalid, UpstreamRefused
from lexora_router.payload.event_stream import events, payloads

BODY = b'{"model":"m","messages":[]}'
HEAD = Head(200, "application/json")
USAGE = {"input_tokens": 3, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 7, "output_tokens": 1}
START = {
    "type": "message_start",
    "message": {"id": "msg_1", "model": "claude", "type": "message", "content": [], "usage": USAGE},
}
STOP: dict[str, Any] = {"type": "content_block_stop"}
LAST = {"type": "message_stop"}
PING = {"type": "ping"}
NAMES = {"type", "text", "thinking", "signature", "partial_json", "stop_reason", "id", "name", "input", "data", "input_tokens"}


def sse(*shown: dict[str, Any]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (each["type"].encode(), json.dumps(each).encode()) for each in shown)


def block(**fields: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": 0, "content_block": fields}


def delta(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": kind, **fields}}


def ending(reason: str, **fields: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason} | fields, "usage": {"output_tokens": 9}}


def chunks(*shown: dict[str, Any], include_usage: bool = False) -> list[dict[str, Any]]:
    """The chunks of a stream, each event by itself and all at once giving the same."""
    fed = ChatByMessages(BODY, include_usage=include_usage).feed(sse(*shown))
    one_by_one = ChatByMessages(BODY, include_usage=include_usage)
    assert b"".join(map(one_by_one.feed, events(sse(*shown)))) == fed
    found = [json.loads(payload) for payload in payloads(fed)]
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in found)
    return found


def deltas(*shown: dict[str, Any]) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in chunks(START, *shown)][1:]


def test_a_stream_of_text() -> None:
    stream = ChatByMessages(BODY, include_usage=True)
    fed = stream.feed(
        sse(START, block(type="text", text=""), PING, delta("text_delta", text='"é\n'), STOP, ending("end_turn"), LAST)
    )
    assert fed.endswith(b"data: [DONE]\n\n")
    assert fed.count(b"\n\n: ping\n\n") == 1
    found = [json.loads(payload) for payload in payloads(fed)]
    assert {(chunk["id"], chunk["model"]) for chunk in found} == {("msg_1", "claude")}
    assert [chunk["choices"] for chunk in found] == [
        [{"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {"content": '"é\n'}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}],
        [],
    ]
    assert found[-1]["usage"] == {
        "prompt_tokens": 50,
        "completion_tokens": 9,
        "total_tokens": 59,
        "prompt_tokens_details": {"cached_tokens": 40},
    }


def test_usage_is_shown_to_those_that_ask_for_it() -> None:
    assert all("usage" not in chunk for chunk in chunks(START, ending("end_turn"), LAST))


def test_parallel_tool_calls_and_one_without_input() -> None:
    found = deltas(
        block(type="text", text="well"),
        STOP,
        block(type="tool_use", id="t1", name="f", input={}),
        delta("input_json_delta", partial_json=""),
        delta("input_json_delta", partial_json='{"a"'),
        delta("input_json_delta", partial_json=":1}"),
        STOP,
        block(type="tool_use", id="t2", name="g", input={}),
        delta("input_json_delta", partial_json=""),
        STOP,
        block(type="tool_use", id="t3", name="h", input={"b": 2}),
        STOP,
    )
    assert found[0] == {"content": "well"}
    calls = [each["tool_calls"][0] for each in found[1:]]
    assert [call["index"] for call in calls] == [0, 0, 0, 1, 1, 2, 2]
    assert [calls[0], calls[3]] == [
        {"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 1, "id": "t2", "type": "function", "function": {"name": "g", "arguments": ""}},
    ]
    arguments = ["".join(call["function"]["arguments"] for call in calls if call["index"] == index) for index in range(3)]
    assert list(map(json.loads, arguments)) == [{"a": 1}, {}, {"b": 2}]


def test_thinking_is_reasoning_and_comes_whole_at_its_end() -> None:
    found = deltas(
        block(type="thinking", thinking="", signature=""),
        delta("thinking_delta", thinking="so "),
        delta("thinking_delta", thinking="so"),
        delta("signature_delta", signature="sig"),
        STOP,
        block(type="redacted_thinking", data="xyz"),
        STOP,
        block(type="thinking", thinking=""),
        STOP,
    )
    assert found == [
        {"reasoning_content": "so "},
        {"reasoning_content": "so"},
        {"thinking_blocks": [{"type": "thinking", "thinking": "so so", "signature": "sig"}]},
        {"thinking_blocks": [{"type": "redacted_thinking", "data": "xyz"}]},
    ]


def test_a_thought_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_by_messages, "MAX_THOUGHT_BYTES", 8)
    thought = [block(type="thinking", thinking=""), delta("thinking_delta", thinking="too long by far")]
    assert deltas(*thought, delta("signature_delta", signature="s"), STOP) == [{"reasoning_content": "too long by far"}]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "stop"),
        ("a_new_one", "stop"),
    ],
)
def test_why_it_ended(reason: str, finish: str) -> None:
    assert chunks(START, ending(reason))[-1]["choices"][0]["finish_reason"] == finish
    message = {"type": "message", "content": [], "stop_reason": reason}
    assert whole(message)["choices"][0]["finish_reason"] == finish


def test_the_stop_sequence_is_named_as_vllm_names_it() -> None:
    assert chunks(START, ending("stop_sequence", stop_sequence="END"))[-1]["choices"][0]["stop_reason"] == "END"


def test_what_is_not_known_says_nothing_and_comments_go_on() -> None:
    stream = ChatByMessages(BODY, include_usage=False)
    odd = [
        {"type": "some_new_event", "delta": {"type": "text_delta", "text": "x"}},
        {"type": "content_block_delta", "delta": "odd"},
        delta("citations_delta", citation={}),
        block(type="web_search_tool_result", content=[]),
        STOP,
        {"type": "message_delta", "delta": {"stop_reason": None}},
    ]
    assert stream.feed(sse(*odd) + b": still there\n\n") == b": still there\n\n"


def test_pieces_before_their_message_are_chunks_all_the_same() -> None:
    [chunk] = chunks(delta("text_delta", text="a"))
    assert chunk["choices"][0]["delta"] == {"content": "a"}


def test_an_event_that_is_no_json_is_the_engine_s_fault() -> None:
    with pytest.raises(UpstreamInvalid):
        ChatByMessages(BODY, include_usage=False).feed(b"event: content_block_delta\ndata: {oops\n\n")


def whole(message: dict[str, Any]) -> dict[str, Any]:
    reply = ChatByMessages(BODY, include_usage=False).reply(Reply(HEAD, json.dumps(message).encode()))
    assert reply.head is HEAD
    return dict(json.loads(reply.body))


def test_a_whole_message() -> None:
    message = {
        "id": "msg_2",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "text", "text": "Let me "},
            {"type": "text", "text": "look."},
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
            {"type": "odd", "text": 3},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": [1.50, 18446744073709551617]}},
        ],
        "stop_reason": "tool_use",
        "usage": USAGE | {"output_tokens_details": {"thinking_tokens": 1}},
    }
    found = whole(message)
    assert isinstance(found.pop("created"), int)
    arguments = found["choices"][0]["message"]["tool_calls"][0]["function"].pop("arguments")
    assert json.loads(arguments) == {"a": [1.5, 18446744073709551617]}
    assert found == {
        "id": "msg_2",
        "object": "chat.completion",
        "model": "claude",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Let me look.",
                    "reasoning_content": "hm",
                    "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "sig"}],
                    "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "f"}}],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 50,
            "completion_tokens": 1,
            "total_tokens": 51,
            "prompt_tokens_details": {"cached_tokens": 40},
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
    }


def test_counts_that_make_no_sense_are_none() -> None:
    message = {"type": "message", "content": [], "usage": {"input_tokens": -1}}
    assert whole(message)["usage"]["total_tokens"] == 0
    odd = START | {"message": START["message"] | {"usage": "many"}}
    assert chunks(odd, ending("end_turn"), LAST, include_usage=True)[-1]["usage"]["completion_tokens"] == 9


@pytest.mark.parametrize("body", [b"[]", b'{"type":"other"}', b"{", b'{"type":"message","content":3}'])
def test_an_answer_that_is_no_message_is_the_engine_s_fault(body: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        ChatByMessages(BODY, include_usage=False).reply(Reply(HEAD, body))


def test_an_error_in_openai_s_words() -> None:
    theirs = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"r"}'
    headers = (("retry-after", "3"),)
    refused = UpstreamRefused(529, "application/json", theirs, headers, blames_request=True)
    made = ChatByMessages(BODY, include_usage=False).refusal(refused)
    assert (made.http_status, made.headers, made.blames_request) == (529, headers, True)
    error = {"message": "Overloaded", "type": "overloaded_error", "param": None, "code": None}
    assert json.loads(made.body) == {"error": error}


@pytest.mark.parametrize("body", [b"<html>", b'{"error":"text"}', b'{"message":"x"}'])
def test_an_error_of_another_shape_stays(body: bytes) -> None:
    assert ChatByMessages(BODY, include_usage=False).error_event(body) == body


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=2) | st.dictionaries(st.sampled_from(sorted(NAMES)), below, max_size=4),
    max_leaves=8,
)
EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(sorted(chat_by_messages._HANDLERS))},
    optional=dict.fromkeys(("message", "content_block", "delta", "usage", "index"), VALUES),
)


@given(st.lists(EVENTS, max_size=6))
def test_whatever_an_engine_sends_is_chunks_or_its_fault(shown: list[dict[str, Any]]) -> None:
    with contextlib.suppress(UpstreamInvalid):
        chunks(*shown)


@given(st.dictionaries(st.sampled_from(sorted(NAMES | {"content", "usage", "stop_reason"})), VALUES))
def test_whatever_an_engine_answers_is_a_completion_or_its_fault(message: dict[str, Any]) -> None:
    with contextlib.suppress(UpstreamInvalid):
        whole(message | {"type": "message"})
