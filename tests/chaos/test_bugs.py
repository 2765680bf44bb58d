"""A bug anywhere on a call's way fails its own call, which says so with a request id, and leaves nothing behind."""

import json
import re
from typing import Any

import aiohttp
import grpc
import pytest
import structlog

from lexora.v1.call_pb2 import Call as CallMessage
from lexora.v1.raw_pb2 import RawCall
from lexora.v1.router_pb2 import GenerateRequest, StreamRequest
from lexora.v1.router_pb2_grpc import RouterServiceStub
from lexora_gateway.http.exchange import Exchange
from lexora_gateway.http.request_reader import RequestReader
from lexora_gateway.response import Answer
from lexora_router.adapters.adapter import Adapter
from lexora_router.edge.stream_sink import StreamSink
from lexora_router.engines.http1 import Connection
from lexora_router.engines.sse import Inspector
from lexora_router.engines.streamed_answer import StreamedAnswer
from lexora_router.engines.whole_answer import WholeAnswerBody
from lexora_router.fleet.endpoint_health import Condition
from lexora_router.fleet.lease import SlotLease
from lexora_router.fleet.shares import FairShares
from lexora_router.fleet.waiting import WaitingCalls
from lexora_router.layers import timeouts
from lexora_router.layers.rate_limit import RateLimit
from tests.contract.conftest import config_of
from tests.support.house import House, house
from tests.support.links import channel, settle
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import Do, Step, reply

CHAT = "/v1/chat/completions"
KINDS = ("http unary", "http stream", "grpc unary", "grpc stream")
PLACES: dict[type, tuple[str, ...]] = {
    Exchange: ("start", "write", "whole", "end"),
    Answer: ("accepted", "head", "frames", "reply", "finish"),
    StreamSink: ("head", "frames", "end"),
    Adapter: ("body",),
    Connection: ("on_header", "on_headers_complete", "on_message_complete"),
    Inspector: ("feed",),
    StreamedAnswer: ("data",),
    WholeAnswerBody: ("data", "end"),
    SlotLease: ("acquire", "next", "answered", "ended"),
    Condition: ("begin", "answered", "ended"),
    WaitingCalls: ("at_once",),
    FairShares: ("ticket", "settle"),
    RateLimit: ("_used",),
}
CHUNK = {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}
LAST = CHUNK | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
EVENTS = [f"data: {json.dumps(each)}\n\n".encode() for each in (CHUNK, CHUNK, LAST)]
CLOSE = "connection: close\r\n"  # a parser keeps the callbacks that it was made with
STREAM = reply(b"".join(EVENTS) + b"data: [DONE]\n\n", content_type="text/event-stream", headers=CLOSE)
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
MESSAGE = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
ANSWER = {"id": "c", "object": "chat.completion", "model": "m", "choices": [MESSAGE], "usage": USAGE}
WHOLE = reply(json.dumps(ANSWER).encode(), headers=CLOSE)


class Bug:
    """Something that is called for the first time raises, once."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        self.met = False
        real = getattr(owner, name)

        def raises_once(*args: Any, **kwargs: Any) -> Any:
            if not self.met:
                self.met = True
                raise RuntimeError("never seen before")
            return real(*args, **kwargs)

        patch.setattr(owner, name, raises_once)


async def ask(at: House, engine: LoopEngine, kind: str, *script: Step) -> tuple[bool, str]:
    """Whether a call went well, and what its client saw; the engine plays the script, or answers."""
    stream = kind.endswith("stream")
    engine.answer(*(script or (STREAM if stream else WHOLE,)))
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}).encode()
    if kind.startswith("http"):
        async with aiohttp.ClientSession(at.http) as session:
            headers = {"content-type": "application/json"}
            async with session.post(CHAT, data=body, headers=headers, timeout=aiohttp.ClientTimeout(10)) as response:
                text = await response.text()
                if response.status == 500 and "under request id" in text:
                    assert response.headers["x-request-id"] in text
                return response.status == 200 and '"error"' not in text, text
    call = CallMessage(raw=RawCall(path=CHAT, body=body))
    async with channel(at.grpc) as wire:
        stub: Any = RouterServiceStub(wire)
        try:
            if stream:
                return True, str([message async for message in stub.Stream(StreamRequest(call=call), timeout=10)])
            return True, str(await stub.Generate(GenerateRequest(call=call), timeout=10))
        except grpc.aio.AioRpcError as error:
            return False, f"{error.code().name}: {error.details()}"


@pytest.mark.parametrize("owner", PLACES, ids=lambda owner: owner.__name__)
async def test_a_bug_costs_one_call_and_nothing_else(owner: type, monkeypatch: pytest.MonkeyPatch) -> None:
    generous = {"enabled": True, "default_rate": 1e6, "default_burst": 10**6, "max_concurrent": 2, "tokens_per_minute": 10**9}
    async with LoopEngine("m") as engine, house(config_of(engine.url, rate_limit=generous)) as at:
        for name in PLACES[owner]:
            met = 0
            for kind in KINDS:
                with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
                    bug = Bug(patch, owner, name)
                    well, text = await ask(at, engine, kind)
                if not bug.met:
                    assert well
                    continue
                met += 1
                assert not well, (name, kind, text)
                [found] = re.findall("Internal error; the log has it under request id ([0-9a-f]{32})", text)
                bugs = [line for line in logs if line["event"] == "bug"]
                assert [line["request_id"] for line in bugs] == [found], (name, kind)
                await settle(lambda: not at.left() and not engine.busy)
                assert (await ask(at, engine, kind))[0], (name, kind)
            assert met, f"{name} is on no call's way"


async def test_a_bug_in_the_timer_of_a_call_ends_that_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its timer it would wait for its engine for ever."""
    async with LoopEngine("m") as engine, house(config_of(engine.url, backend={"first_token_timeout": 0.05})) as at:
        for kind in KINDS:
            with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
                Bug(patch, timeouts._Watch, "fire")
                well, text = await ask(at, engine, kind, Do.HANG)
            assert not well
            assert "Internal error; the log has it under request id" in text
            assert len([line for line in logs if line["event"] == "bug"]) == 1
            await settle(lambda: not at.left() and not engine.busy)


@pytest.mark.parametrize("name", ["on_url", "on_header", "on_headers_complete", "on_body", "on_message_complete"])
async def test_a_bug_in_the_reading_of_a_request_is_a_500_and_no_fault_of_its_client(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with LoopEngine("m") as engine, house(config_of(engine.url)) as at:
        with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
            Bug(patch, RequestReader, name)
            well, text = await ask(at, engine, "http unary")
        assert not well
        assert "Internal error" in text
        assert [line["event"] for line in logs if line["log_level"] == "error"] == ["bug"]
        await settle(lambda: not at.left() and not engine.busy)
        assert (await ask(at, engine, "http unary"))[0]
