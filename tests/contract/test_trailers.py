"""Trailing metadata over a real channel: who answered, and when to come back."""

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from lexora.v1 import classify_pb2, embed_pb2, receipt_pb2
from lexora.v1.router_pb2_grpc import RouterServiceStub
from lexora_contract.answer import Head
from lexora_contract.port import Sink
from lexora_router.call import Call
from lexora_router.config import Config
from lexora_router.process.app import RouterApp
from tests.contract.messages import FORMS, ID, OPTIONS, STREAM, STREAM_FORMS, answer, delta, failing, raw_call, streamed, unary
from tests.support.links import Outcome, channel, running, status_in, trailers
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import Do, chunk, closed_port, reply, stream_head

ANSWERED = {"x-request-id": ID, "x-lexora-backend": "main", "x-lexora-attempts": "1"}


async def failed(call: Any) -> tuple[Outcome, dict[str, Any], grpc.aio.AioRpcError]:
    """Status, trailers and error of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await (_read(call) if isinstance(call, grpc.aio.UnaryStreamCall) else call)
    error = raised.value
    status = status_in(error)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    found = trailers(error.trailing_metadata())
    del found["grpc-status-details-bin"]
    return Outcome(status=status), found, error


async def _read(call: Any) -> None:
    async for _ in call:
        pass


async def test_of_answers(router: tuple[RouterApp, str], engine: LoopEngine) -> None:
    async with channel(router[1]) as wire:
        stub = RouterServiceStub(wire)
        engine.answer(reply(answer()))
        for form in FORMS.values():
            call: Any = stub.Generate(unary(**form))
            await call
            assert trailers(await call.trailing_metadata()) == ANSWERED
        engine.answer(STREAM)
        for form in STREAM_FORMS.values():
            call = stub.Stream(streamed(**form))
            assert [message async for message in call]
            assert trailers(await call.trailing_metadata()) == ANSWERED
        engine.answer(reply(b'{"data":[]}'))
        call = stub.Embed(embed_pb2.EmbedRequest(options=OPTIONS, model="vec", texts={"values": ["a"]}))
        await call
        assert trailers(await call.trailing_metadata()) == ANSWERED


async def test_of_failures(router: tuple[RouterApp, str], engine: LoopEngine) -> None:
    async with channel(router[1]) as wire:
        stub = RouterServiceStub(wire)
        engine.answer(failing("400 Bad Request", b'{"error":{"message":"No."}}'))
        for call in (stub.Generate(unary(raw=raw_call())), stub.Stream(streamed(**STREAM_FORMS["chat"]))):
            outcome, found, _ = await failed(call)
            assert outcome.upstream.status == 400
            assert found == ANSWERED
        engine.answer(stream_head(), chunk(delta("a")), Do.CLOSE)
        outcome, found, _ = await failed(stub.Stream(streamed(**STREAM_FORMS["chat"])))
        assert (outcome.reason, found) == ("UPSTREAM_BROKEN", ANSWERED)
        outcome, found, _ = await failed(stub.Generate(unary(raw=raw_call(path="/nowhere"))))
        assert (outcome.reason, found) == ("NOT_FOUND", ANSWERED | {"x-lexora-backend": "", "x-lexora-attempts": "0"})
        task = classify_pb2.ClassifyRequest(options=OPTIONS, task_description="Sort these.")
        outcome, _, error = await failed(stub.Classify(task))
        assert (outcome.reason, error.code()) == ("CLASSIFIER_DISABLED", grpc.StatusCode.UNAVAILABLE)


async def test_a_retry_hint_is_told_in_both_ways(router: tuple[RouterApp, str]) -> None:
    """RetryInfo for those who read details, grpc-retry-pushback-ms for the retries of stock clients."""
    app, address = router
    app.guard.draining = True
    async with channel(address) as wire:
        for call in (RouterServiceStub(wire).Generate(unary(raw=raw_call())), RouterServiceStub(wire).Stream(streamed())):
            outcome, found, _ = await failed(call)
            assert found["grpc-retry-pushback-ms"] == "1000"
            assert outcome.detail(error_details_pb2.RetryInfo).retry_delay.seconds == 1
    app.guard.draining = False


async def test_a_stock_client_learns_what_its_deadline_was_lost_on(router: tuple[RouterApp, str], engine: LoopEngine) -> None:
    engine.answer(Do.HANG)
    async with channel(router[1]) as wire:
        outcome, found, error = await failed(RouterServiceStub(wire).Generate(unary(raw=raw_call()), timeout=0.5))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert found == ANSWERED
    assert outcome.detail(receipt_pb2.Receipt).endpoint == engine.url


def with_a_spare(url: str) -> Config:
    """Nobody listens at the first backend; the second one is the engine."""
    main = {"url": f"http://127.0.0.1:{closed_port()}", "models": ["m"], "fallback_backends": ["spare"]}
    backends = {"main": main, "spare": {"url": url, "models": ["m"]}}
    routing = {"default_backend": "main", "backends": backends}
    return Config.model_validate({"routing": routing, "retry": {"max_retries": 0}, "rate_limit": {"enabled": False}})


async def test_a_fallback_is_told_with_answers_and_with_failures(engine: LoopEngine) -> None:
    told = {"x-request-id": ID, "x-lexora-backend": "spare", "x-lexora-attempts": "2"}
    told["x-lexora-fallback"] = "main->spare;reason=UPSTREAM_UNREACHABLE"
    async with running(with_a_spare(engine.url)) as (_, address), channel(address) as wire:
        stub = RouterServiceStub(wire)
        engine.answer(reply(answer()))
        call: Any = stub.Generate(unary(raw=raw_call()))
        await call
        assert trailers(await call.trailing_metadata()) == told
        engine.answer(STREAM)
        call = stub.Stream(streamed(**STREAM_FORMS["chat"]))
        assert [message async for message in call]
        assert trailers(await call.trailing_metadata()) == told
        engine.answer(failing("400 Bad Request", b'{"error":{"message":"No."}}'))
        _, found, _ = await failed(stub.Generate(unary(raw=raw_call())))
        # What a probe has found meanwhile may be the reason as well.
        assert found["x-lexora-fallback"].startswith("main->spare;reason=")


async def test_a_resumed_stream_is_told(router: tuple[RouterApp, str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def resumed(call: Call, sink: Sink) -> None:
        sink.head(Head(200, "text/event-stream"))
        sink.frames(b"data: [DONE]\n\n")
        call.receipt.backend, call.receipt.attempts, call.receipt.resumed = "main", 2, "token_ids"

    app, address = router
    monkeypatch.setattr(app.guard, "serving", replace(app.guard.serving, pipeline=resumed))
    async with channel(address) as wire:
        call: Any = RouterServiceStub(wire).Stream(streamed(**STREAM_FORMS["raw"]))
        assert [message async for message in call]
        assert trailers(await call.trailing_metadata()) == ANSWERED | {
            "x-lexora-attempts": "2",
            "x-lexora-resumed": "token_ids",
        }


async def test_a_bug_tells_an_identity_and_nothing_else(
    router: tuple[RouterApp, str], monkeypatch: pytest.MonkeyPatch, engine: LoopEngine
) -> None:
    async def broken(*_: Any) -> None:
        await asyncio.sleep(0)
        raise KeyError("a secret")

    app, address = router
    monkeypatch.setattr(app.guard, "serving", replace(app.guard.serving, pipeline=broken))
    async with channel(address) as wire:
        stub = RouterServiceStub(wire)
        for call in (stub.Generate(unary(raw=raw_call())), stub.Stream(streamed(raw=raw_call()))):
            outcome, found, error = await failed(call)
            assert (error.code(), outcome.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
            assert outcome.failure.message == f"Internal error; the log has it under request id {ID}."
            assert found["x-request-id"] == ID
            assert "secret" not in str(outcome.failure)
            assert "secret" not in (error.debug_error_string() or "")
