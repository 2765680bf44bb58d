"""A router that shuts down: calls under way end in peace, new ones are sent elsewhere."""

import asyncio

import pytest
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo

from lexora.v1 import classify_pb2, embed_pb2, health_pb2, models_pb2, receipt_pb2, stats_pb2
from tests.contract.messages import FORMS, ID, OPTIONS, STREAM_FORMS, answer, streamed, unary
from tests.support.links import Link, Outcome, settle
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import reply


async def call(link: Link, rpc: str) -> Outcome:
    match rpc:
        case "generate":
            return await link.generate(unary(**FORMS["chat"]))
        case "stream":
            return await link.stream(streamed(**STREAM_FORMS["raw"]))
        case "embed":
            return await link.embed(embed_pb2.EmbedRequest(options=OPTIONS, model="vec", texts={"values": ["a"]}))
    return await link.ask("classify", classify_pb2.ClassifyRequest(options=OPTIONS))


@pytest.mark.parametrize("rpc", ["generate", "stream", "embed", "classify"])
async def test_new_calls_are_refused(link: Link, engine: LoopEngine, rpc: str) -> None:
    await link.app.drain()
    outcome = await call(link, rpc)
    assert outcome.failure.code == code_pb2.UNAVAILABLE
    assert outcome.failure.message == "The router is shutting down; try another one."
    info = ErrorInfo(reason="DRAINING", domain="lexora.spirrow", metadata={"request_id": ID, "backend": ""})
    assert outcome.detail(ErrorInfo) == info
    assert outcome.detail(RetryInfo).retry_delay.ToTimedelta().total_seconds() == 1
    assert outcome.detail(receipt_pb2.Receipt) == receipt_pb2.Receipt(request_id=ID)
    assert engine.requests == []


async def test_calls_under_way_run_to_their_end(link: Link, engine: LoopEngine) -> None:
    gate = asyncio.Event()
    engine.answer(gate, reply(answer()))
    under_way = asyncio.create_task(link.generate(unary(**FORMS["chat"])))
    await engine.wait_requests()
    draining = asyncio.create_task(link.app.drain())
    await settle(lambda: link.app.guard.draining)
    assert (await call(link, "generate")).reason == "DRAINING"
    assert not draining.done()
    gate.set()
    assert (await under_way).only.chat.choices[0].message.text == "Hello"
    await draining


async def test_questions_about_the_router_are_still_answered(link: Link) -> None:
    await link.app.drain()
    health = (await link.ask("health", health_pb2.HealthRequest())).only
    assert health.status == health_pb2.BACKEND_STATUS_UNHEALTHY
    assert len((await link.ask("list_models", models_pb2.ListModelsRequest())).only.models) == 2
    assert (await link.ask("get_stats", stats_pb2.GetStatsRequest())).status is None
