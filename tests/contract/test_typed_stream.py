"""The typed form, streamed: one message per event, the receipt so far in the first and the whole one in the last."""

import asyncio
import json
from typing import Any

import pytest

from lexora.v1 import chat_pb2, completion_pb2, router_pb2, tokens_pb2
from tests.contract.messages import COUNTED, DONE, STREAM, USAGE_EVENT, chat, delta, event, receipt, streamed
from tests.support.links import ALL_WAYS, Link
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import LAST_CHUNK, chunk, stream, stream_head


def piece(**fields: Any) -> chat_pb2.ChatChunk:
    """A chunk with one delta of these fields."""
    return chat_pb2.ChatChunk(id="c1", model="m", create_time={"seconds": 1}, choices=[chat_pb2.ChatDelta(**fields)])


END = {"finish_reason": tokens_pb2.FINISH_REASON_STOP, "finish_reason_raw": "stop"}


@pytest.mark.parametrize("link", ALL_WAYS, indirect=True)
async def test_a_streamed_chat(link: Link, engine: LoopEngine) -> None:
    engine.answer(STREAM)
    outcome = await link.stream(streamed(chat=chat()))
    assert outcome.status is None
    assert outcome.messages == [
        router_pb2.StreamResponse(started={"receipt": receipt(engine.url)}),
        router_pb2.StreamResponse(delta={"chat": piece(role=chat_pb2.ROLE_ASSISTANT, text="Hel")}),
        router_pb2.StreamResponse(delta={"chat": piece(text="lo")}),
        router_pb2.StreamResponse(delta={"chat": piece(**END)}),
        router_pb2.StreamResponse(completed={"receipt": receipt(engine.url, usage=COUNTED)}),
    ]
    body = json.loads(engine.requests[0].body)
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


async def test_pieces_come_when_the_engine_sends_them(link: Link, engine: LoopEngine) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    script: list[Any] = [stream_head()]
    for text, gate in zip("abc", gates, strict=True):
        script += [chunk(delta(text)), gate]
    engine.answer(*script, chunk(delta(finish="stop") + DONE), LAST_CHUNK)
    texts: list[str] = []

    def seen(message: router_pb2.StreamResponse) -> None:
        # The engine goes on only when the piece before has arrived.
        if message.HasField("delta") and (text := message.delta.chat.choices[0].text):
            texts.append(text)
            gates[len(texts) - 1].set()

    outcome = await link.stream(streamed(chat=chat()), seen=seen)
    assert outcome.status is None
    assert texts == ["a", "b", "c"]


async def test_a_stream_without_usage_ends_without_it(link: Link, engine: LoopEngine) -> None:
    engine.answer(stream(b": hello\n\n", delta("a"), delta(finish="stop"), DONE))
    outcome = await link.stream(streamed(chat=chat()))
    assert len(outcome.messages) == 4
    assert outcome.messages[-1] == router_pb2.StreamResponse(completed={"receipt": receipt(engine.url)})


async def test_a_streamed_completion(link: Link, engine: LoopEngine) -> None:
    def part(text: str, finish: str | None = None) -> bytes:
        choice = {"index": 0, "text": text, "finish_reason": finish}
        return event({"id": "c1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]})

    engine.answer(stream(part("a"), part("b", "length"), USAGE_EVENT, DONE))
    outcome = await link.stream(streamed(completion=completion_pb2.CompletionRequest(model="m", text="Hi")))

    def chunk_of(**fields: Any) -> completion_pb2.CompletionChunk:
        choice = completion_pb2.CompletionChoice(**fields)
        return completion_pb2.CompletionChunk(id="c1", model="m", create_time={"seconds": 1}, choices=[choice])

    last = {"finish_reason": tokens_pb2.FINISH_REASON_LENGTH, "finish_reason_raw": "length"}
    assert outcome.status is None
    assert outcome.messages == [
        router_pb2.StreamResponse(started={"receipt": receipt(engine.url)}),
        router_pb2.StreamResponse(delta={"completion": chunk_of(text="a")}),
        router_pb2.StreamResponse(delta={"completion": chunk_of(text="b", **last)}),
        router_pb2.StreamResponse(completed={"receipt": receipt(engine.url, usage=COUNTED)}),
    ]
    assert engine.requests[0].target == "/v1/completions"


@pytest.mark.parametrize("size", [1, 64 * 1024])
async def test_many_pieces_keep_their_order(link: Link, engine: LoopEngine, size: int) -> None:
    count = 300 if size == 1 else 40
    texts = [f"{number}".rjust(size, ".") for number in range(count)]
    engine.answer(stream(*(delta(text) for text in texts), delta(finish="stop"), DONE))
    outcome = await link.stream(streamed(chat=chat()))
    assert outcome.status is None
    assert [m.delta.chat.choices[0].text for m in outcome.messages[1 : count + 1]] == texts
