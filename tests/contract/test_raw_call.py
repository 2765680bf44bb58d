"""The wire-faithful form: the engine's bytes out, the client's bytes in, whatever they are."""

import pytest

from lexora.v1 import raw_pb2, router_pb2
from tests.contract.messages import (
    CHAT,
    COUNTED,
    DONE,
    ID,
    STREAM_BODY,
    USAGE_EVENT,
    answer,
    delta,
    raw_call,
    receipt,
    streamed,
    unary,
)
from tests.support.links import Link
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import LAST_CHUNK, chunk, reply, stream_head

ODD = b'{ "model" : "m", "messages" : [], "seed": 9007199254740993, "x": null, "\\u00e9":"\xe3\x81\x82", "t": 1.0e0 }'
HEADERS = "openai-processing-ms: 7\r\nx-ratelimit-remaining-tokens: 9\r\nset-cookie: a=b\r\nserver: uvicorn\r\n"
KEPT = [
    raw_pb2.Header(name="openai-processing-ms", value="7"),
    raw_pb2.Header(name="x-ratelimit-remaining-tokens", value="9"),
]


def head(content_type: str = "application/json", headers: list[raw_pb2.Header] | None = None) -> raw_pb2.RawHead:
    return raw_pb2.RawHead(status=200, content_type=content_type, headers=headers)


async def test_every_byte_there_and_back(link: Link, engine: LoopEngine) -> None:
    body = answer().replace(b'"Hello"', b'"\xe3\x81\x82 \\u3042"').replace(b":1,", b": 1 ,")
    engine.answer(reply(body, headers=HEADERS))
    outcome = await link.generate(unary(raw=raw_call(ODD)))
    assert outcome.only == router_pb2.GenerateResponse(
        receipt=receipt(engine.url, usage=COUNTED), raw=raw_pb2.RawReply(head=head(headers=KEPT), body=body)
    )
    assert engine.requests[0].body == ODD
    assert engine.requests[0].header("content-type") == "application/json"


@pytest.mark.parametrize(("path", "passed"), [("/v1/messages", "a,b"), (CHAT, None)])
async def test_the_headers_that_an_endpoint_has_reach_the_engine(
    link: Link, engine: LoopEngine, path: str, passed: str | None
) -> None:
    engine.answer(reply(answer()))
    call = raw_call(path=path)
    call.headers.add(name="Anthropic-Beta", value="a,b")
    call.headers.add(name="x-other", value="secret")
    await link.generate(unary(raw=call))
    assert (engine.requests[0].header("anthropic-beta"), engine.requests[0].header("x-other")) == (passed, None)


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "x" * 5000])
async def test_a_header_that_cannot_be_sent_is_refused(link: Link, engine: LoopEngine, value: str) -> None:
    call = raw_call(path="/v1/messages")
    call.headers.add(name="anthropic-beta", value=value)
    assert (await link.generate(unary(raw=call))).reason == "INVALID_REQUEST"
    assert engine.requests == []


EVENTS = [b": ping\n\n", delta("a"), b"event: x\r\ndata: {}\r\n\r\n", delta(finish="stop")]


@pytest.mark.parametrize("asked_for_usage", [True, False])
async def test_a_stream(link: Link, engine: LoopEngine, asked_for_usage: bool) -> None:
    engine.answer(stream_head(HEADERS), *(chunk(e) for e in (*EVENTS, USAGE_EVENT, DONE)), LAST_CHUNK)
    body = STREAM_BODY
    if asked_for_usage:
        body = body.replace(b"true}", b'true,"stream_options":{"include_usage":true}}')
    outcome = await link.stream(streamed(raw=raw_call(body)))
    assert outcome.status is None
    first, *middle, last = outcome.messages
    assert b"".join(message.delta.frames for message in middle) == b"".join(
        [*EVENTS, *([USAGE_EVENT] if asked_for_usage else []), DONE]
    )
    begun = {"receipt": receipt(engine.url), "head": head("text/event-stream; charset=utf-8", KEPT)}
    assert first == router_pb2.StreamResponse(started=begun)
    assert all(message == router_pb2.StreamResponse(delta={"frames": message.delta.frames}) for message in middle)
    assert last == router_pb2.StreamResponse(completed={"receipt": receipt(engine.url, usage=COUNTED)})
    assert b'"include_usage":true' in engine.requests[0].body


async def test_a_whole_reply_comes_through_stream_too(link: Link, engine: LoopEngine) -> None:
    engine.answer(reply(answer(), headers=HEADERS))
    outcome = await link.stream(streamed(raw=raw_call(ODD)))
    final = receipt(engine.url, usage=COUNTED)
    assert outcome.messages == [
        router_pb2.StreamResponse(
            completed={"receipt": final, "reply": raw_pb2.RawReply(head=head(headers=KEPT), body=answer())}
        )
    ]
    assert outcome.status is None
    assert engine.requests[0].body == ODD


TRACE = (("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("tracestate", "a=1"))


@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_metadata(link: Link, engine: LoopEngine, kind: str) -> None:
    engine.answer(reply(answer()))
    metadata = (*TRACE, ("authorization", "Bearer client"), ("x-other", "1"))
    if kind == "unary":
        assert (await link.generate(unary(raw=raw_call()), metadata=metadata)).status is None
    else:
        assert (await link.stream(streamed(raw=raw_call()), metadata=metadata)).status is None
    request = engine.requests[0]
    assert {name: request.header(name) for name, _ in TRACE} == dict(TRACE)
    assert request.header("x-request-id") == ID
    assert request.names == {
        *("host", "content-type", "content-length", "accept-encoding", "user-agent"),
        *("x-request-id", "traceparent", "tracestate"),
    }
