from __future__ import annotations

import json

import pytest

from lexora_sim import SimSettings, Simulator
from tests.unit.sim.helpers import Answer, chat, names, post

CHOICE_KEYS = ["index", "message", "logprobs", "finish_reason", "stop_reason", "token_ids", "routed_experts"]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}


async def test_unary_has_every_field_in_order(sim: Simulator) -> None:
    answer = await chat(sim, max_tokens=8)
    body = answer.json()
    assert list(body) == names(
        "id object created model choices service_tier system_fingerprint usage prompt_logprobs prompt_token_ids "
        "prompt_text kv_transfer_params ec_transfer_params metrics"
    )
    choice = body["choices"][0]
    assert list(choice) == CHOICE_KEYS
    assert list(choice["message"]) == names("role content refusal annotations audio function_call reasoning")
    assert choice["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 8
    assert b'": ' not in answer.body
    lines = [line.split(":")[0] for line in answer.head.split("\r\n")[1:]]
    assert lines == ["date", "server", "content-length", "content-type", "vary", "x-request-id", "connection"]


async def test_stream_is_one_event_a_chunk(sim: Simulator) -> None:
    answer = await chat(sim, max_tokens=16, stream=True)
    assert answer.complete
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in answer.chunks)
    assert answer.chunks[-1] == b"data: [DONE]\n\n"
    first, second, *_, last, _ = answer.chunks
    assert b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]' in first
    assert first.endswith(b',"prompt_token_ids":null,"prompt_text":null}\n\n')
    assert second.endswith(b'},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n')
    assert b'"finish_reason":"length","stop_reason":null,"token_ids":null}],"system_fingerprint":"vllm-' in last


async def test_stream_and_unary_say_the_same(sim: Simulator) -> None:
    whole = (await chat(sim, max_tokens=60, seed=3)).json()["choices"][0]["message"]["content"]
    assert (await chat(sim, max_tokens=60, seed=3, stream=True)).text() == whole
    assert (await chat(sim, max_tokens=60, seed=4)).json()["choices"][0]["message"]["content"] != whole


async def test_usage_in_streams(sim: Simulator) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = (await chat(sim, max_tokens=4, stream=True, stream_options=options)).events()
    assert events[0]["usage"]["completion_tokens"] == 0
    last = events[-2]
    assert list(last) == ["id", "object", "created", "model", "choices", "usage", "system_fingerprint"]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 4
    assert "system_fingerprint" not in events[-3]
    assert all("usage" in event for event in events[:-1])


async def test_token_ids(sim: Simulator) -> None:
    answer = await chat(sim, max_tokens=40, stream=True, return_token_ids=True)
    events = answer.events()
    assert len(events[0]["prompt_token_ids"]) > 3
    assert len(answer.ids()) == 40
    held = [e for e in events[1:-1] if e["choices"][0]["delta"]["content"] == "" and e["choices"][0]["token_ids"]]
    assert held
    whole = (await chat(sim, max_tokens=40, return_token_ids=True)).json()
    assert whole["choices"][0]["token_ids"] == answer.ids()
    assert whole["prompt_token_ids"] == events[0]["prompt_token_ids"]


async def test_n_choices_differ(sim: Simulator) -> None:
    body = (await chat(sim, max_tokens=8, n=2)).json()
    first, second = body["choices"]
    assert (first["index"], second["index"]) == (0, 1)
    assert first["message"]["content"] != second["message"]["content"]
    assert body["usage"]["completion_tokens"] == 16
    events = (await chat(sim, max_tokens=8, n=2, stream=True)).events()
    assert [event["choices"][0]["index"] for event in events[:2]] == [0, 1]
    assert sum(event["choices"][0]["finish_reason"] == "length" for event in events[:-1]) == 2


async def test_logprobs(sim: Simulator) -> None:
    body = (await chat(sim, max_tokens=2, logprobs=True, top_logprobs=2)).json()
    entry = body["choices"][0]["logprobs"]["content"][0]
    assert list(entry) == ["token", "logprob", "bytes", "top_logprobs"]
    assert bytes(entry["bytes"]).decode("utf-8", "replace") == entry["token"]
    assert len(entry["top_logprobs"]) == 2
    assert entry["top_logprobs"][0]["token"] == entry["token"]


async def test_natural_end_and_ignore_eos(quick: dict[str, object]) -> None:
    async with Simulator(SimSettings(natural_length=20, **quick)) as sim:  # type: ignore[arg-type]  # test settings
        body = (await chat(sim, max_tokens=100)).json()
        assert body["choices"][0]["finish_reason"] == "stop"
        assert 20 < body["usage"]["completion_tokens"] <= 29
        body = (await chat(sim, max_tokens=100, ignore_eos=True)).json()
        assert body["usage"]["completion_tokens"] == 100
        body = (await chat(sim, max_tokens=100, min_tokens=60)).json()
        assert 60 < body["usage"]["completion_tokens"] < 70


async def test_defaults_to_the_setting(sim: Simulator) -> None:
    assert (await chat(sim)).json()["usage"]["completion_tokens"] == 64


@pytest.mark.parametrize("stream", [False, True])
async def test_stop_strings(sim: Simulator, *, stream: bool) -> None:
    whole = (await chat(sim, max_tokens=40)).json()["choices"][0]["message"]["content"]
    stop = whole[30:36]
    answer = await chat(sim, max_tokens=40, stop=["never there", stop], stream=stream)
    if stream:
        last = answer.events()[-2]["choices"][0]
        assert (last["finish_reason"], last["stop_reason"]) == ("stop", stop)
        assert answer.text() == whole[: whole.index(stop)]
    else:
        choice = answer.json()["choices"][0]
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)
        assert choice["message"]["content"] == whole[: whole.index(stop)]
    assert sim.app.scheduler.running == 0


async def test_continue_final_message(sim: Simulator) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Once upon"}]
    continued = await chat(sim, messages=messages, continue_final_message=True, add_generation_prompt=False)
    assert continued.status == 200
    assert (await chat(sim, messages=messages, continue_final_message=True)).status == 400


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "weather"}}])
async def test_tool_calls(sim: Simulator, choice: object) -> None:
    body = (await chat(sim, tools=[TOOL], tool_choice=choice)).json()
    message = body["choices"][0]["message"]
    assert list(message).index("tool_calls") == list(message).index("reasoning") - 1
    call = message["tool_calls"][0]
    arguments = json.loads(call["function"]["arguments"])
    assert set(arguments) == {"city", "days"}
    assert isinstance(arguments["days"], int)
    named = isinstance(choice, dict)
    assert body["choices"][0]["finish_reason"] == ("stop" if named else "tool_calls")
    assert message["content"] == ("" if named else None)
    streamed = await chat(sim, tools=[TOOL], tool_choice=choice, stream=True)
    assert _streamed_arguments(streamed) == call["function"]["arguments"]


def _streamed_arguments(answer: Answer) -> str:
    deltas = [event["choices"][0]["delta"] for event in answer.events()[:-1]]
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert calls[0]["function"]["name"] == "weather"
    assert calls[0]["id"].startswith("chatcmpl-tool-")
    assert all("id" not in call for call in calls[1:])
    return "".join(call["function"]["arguments"] for call in calls)


async def test_auto_answers_in_text_after_a_result(sim: Simulator) -> None:
    messages = [{"role": "user", "content": "?"}, {"role": "tool", "tool_call_id": "1", "content": "sunny"}]
    message = (await chat(sim, messages=messages, tools=[TOOL])).json()["choices"][0]["message"]
    assert message["content"]
    assert "tool_calls" not in message


async def test_structured_output(sim: Simulator) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["x"]}, "b": {"type": "array", "items": {"type": "number"}}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    body = (await chat(sim, response_format=wanted)).json()
    value = json.loads(body["choices"][0]["message"]["content"])
    assert value["a"] == "x"
    assert body["choices"][0]["finish_reason"] == "stop"
    plain = (await chat(sim, response_format={"type": "json_object"})).json()
    assert isinstance(json.loads(plain["choices"][0]["message"]["content"]), dict)
    cut = (await chat(sim, response_format=wanted, max_tokens=3)).json()
    assert cut["choices"][0]["finish_reason"] == "length"


async def test_reasoning(quick: dict[str, object]) -> None:
    async with Simulator(SimSettings(reasoning_tokens=5, **quick)) as sim:  # type: ignore[arg-type]  # test settings
        message = (await chat(sim, max_tokens=12)).json()["choices"][0]["message"]
        assert message["reasoning"]
        assert message["content"]
        events = (await chat(sim, max_tokens=12, stream=True)).events()
        deltas = [event["choices"][0]["delta"] for event in events[:-1]]
        assert "".join(delta.get("reasoning", "") for delta in deltas) == message["reasoning"]
        assert "".join(delta.get("content", "") for delta in deltas) == message["content"]


async def test_request_id_is_echoed(sim: Simulator) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
    answer = await post(sim, "/v1/chat/completions", body, x_request_id="mine-1")
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.json()["id"] == "chatcmpl-mine-1"
    assert answer.json()["model"] == "tiny"
