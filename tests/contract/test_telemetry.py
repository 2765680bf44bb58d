"""Traces over every way to the router, and what the section's keys change. The collector is real, the engine is a script."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from lexora.v1 import call_pb2, raw_pb2, router_pb2
from lexora_router.config import Config
from tests.contract.conftest import config_of
from tests.support.links import ALL_WAYS, Link, linked, settle
from tests.support.loop_engine import LoopEngine
from tests.support.otlp import Client, Receiver, Trace
from tests.support.raw_server import reply

CHAT = "/v1/chat/completions"
SAID = "The password of the fox is swordfish."
OK = reply(b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":7}}')


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def request(model: str = "m") -> router_pb2.GenerateRequest:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": SAID}]}).encode()
    return router_pb2.GenerateRequest(call=call_pb2.Call(raw=raw_pb2.RawCall(path=CHAT, body=body)))


def config(engine: LoopEngine, collector: Receiver, **keys: Any) -> Config:
    return config_of(engine.url, telemetry=collector.config(**keys))


async def traced(collector: Receiver, trace_id: str, count: int) -> Trace:
    """All of a trace; the loop goes on meanwhile."""
    await settle(lambda: len([span for span in collector.spans if span.trace_id == trace_id]) >= count)
    return collector.trace(trace_id, count)


@pytest.mark.parametrize("way", ALL_WAYS)
async def test_the_client_s_context_comes_through_every_way(
    way: str, engine: LoopEngine, collector: Receiver, tmp_path: Path
) -> None:
    engine.answer(OK)
    client = Client()
    async with linked(way, config(engine, collector), tmp_path) as link:
        assert (await link.generate(request(), metadata=tuple(client.headers.items()))).only
        trace = await traced(collector, client.trace_id, 3)
    assert trace.root.parent_id == client.span_id
    assert trace.root.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert engine.requests[0].header("traceparent") == f"00-{client.trace_id}-{trace.attempts[0].span_id}-01"


async def test_without_telemetry_the_client_s_trace_is_named_and_passed_on(link: Link, engine: LoopEngine) -> None:
    engine.answer(OK)
    client = Client()
    assert (await link.generate(request(), metadata=tuple(client.headers.items()))).only
    assert engine.requests[0].header("traceparent") == client.headers["traceparent"]
    engine.answer(reply(b"<html>", status="502 Bad Gateway"))
    outcome = await link.generate(request(), metadata=tuple(client.headers.items()))
    assert outcome.detail(ErrorInfo).metadata["trace_id"] == client.trace_id
    outcome = await link.generate(request())
    assert "trace_id" not in outcome.detail(ErrorInfo).metadata


async def test_what_was_asked_is_told_only_when_that_is_wanted(engine: LoopEngine, collector: Receiver, tmp_path: Path) -> None:
    engine.answer(OK)
    shown = []
    for wanted in (False, True):
        client = Client()
        async with linked("in process", config(engine, collector, capture_prompts=wanted), tmp_path) as link:
            assert (await link.generate(request(), metadata=tuple(client.headers.items()))).only
            trace = await traced(collector, client.trace_id, 3)
        shown.append([span.attributes.get("gen_ai.input.messages") for span in trace.spans])
    assert shown[0] == [None] * 3
    messages, *others = shown[1]
    assert json.loads(messages) == [{"role": "user", "parts": [{"type": "text", "content": SAID}]}]
    assert others == [None, None]


async def test_a_ratio_of_none_leaves_only_what_clients_want(engine: LoopEngine, collector: Receiver, tmp_path: Path) -> None:
    engine.answer(OK)
    client = Client()
    async with linked("in process", config(engine, collector, sample_ratio=0.0), tmp_path) as link:
        assert (await link.generate(request())).only
        assert (await link.generate(request(), metadata=tuple(client.headers.items()))).only
        await traced(collector, client.trace_id, 3)
    assert {span.trace_id for span in collector.spans} == {client.trace_id}
    assert [point.count for _, point in collector.points("gen_ai.server.request.duration")] == [2]  # metrics count all
    unsampled = engine.requests[0].header("traceparent")
    assert unsampled is not None
    assert not int(unsampled[-2:], 16) & 1  # the engine decides alike


async def test_a_failed_call_s_status_names_its_trace(engine: LoopEngine, collector: Receiver, tmp_path: Path) -> None:
    async with linked("tcp", config(engine, collector), tmp_path) as link:
        outcome = await link.generate(router_pb2.GenerateRequest())
    (span,) = collector.spans
    assert outcome.detail(ErrorInfo).metadata["trace_id"] == span.trace_id
    assert span.attributes["error.type"] == outcome.reason == "INVALID_REQUEST"
