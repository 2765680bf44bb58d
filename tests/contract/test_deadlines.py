"""Deadlines of clients and timeouts of engines, in each phase of a call."""

import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from google.rpc import code_pb2

from lexora.v1 import models_pb2, receipt_pb2, stats_pb2
from lexora_contract.channel import ChannelRouter
from lexora_contract.plain import stats_plain
from lexora_contract.port import CallContext, CallFailed
from lexora_contract.rpcs import GENERATE
from lexora_contract.status import status_of
from tests.contract.conftest import config_of
from tests.contract.messages import FORMS, STREAM_FORMS, delta, receipt, streamed, unary
from tests.support.links import MIB, WAYS, Link, Outcome, linked
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import Do, Step, chunk, stream_head

SECONDS = 0.5
LATE_SECONDS = 2.0  # of a busy machine; without the deadline the call would wait for minutes
SILENT: dict[str, tuple[Step, ...]] = {
    "no answer": (Do.HANG,),
    "no body": (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n", Do.HANG),
    "no event": (stream_head(), Do.HANG),
    "after a comment": (stream_head(), chunk(b": ping\n\n"), Do.HANG),
    "in mid-answer": (stream_head(), chunk(delta("a")), Do.HANG),
}
UNARY = [("generate", "chat", "no answer"), ("generate", "raw", "no body")]
STREAMED = [
    ("stream", "raw", "no answer"),
    ("stream", "chat", "no event"),
    ("stream", "raw", "after a comment"),
    ("stream", "chat", "in mid-answer"),
    ("stream", "raw", "in mid-answer"),
]


async def call(link: Link, engine: LoopEngine, rpc: str, form: str, phase: str, **context: Any) -> Outcome:
    engine.answer(*SILENT[phase])
    if rpc == "generate":
        return await link.generate(unary(**FORMS[form]), **context)
    outcome = await link.stream(streamed(**STREAM_FORMS[form]), **context)
    assert len(outcome.messages) == (2 if phase == "in mid-answer" else 0)
    return outcome


@pytest.mark.parametrize(("rpc", "form", "phase"), UNARY + STREAMED)
async def test_the_clients_deadline(link: Link, engine: LoopEngine, rpc: str, form: str, phase: str) -> None:
    started = time.monotonic()
    outcome = await call(link, engine, rpc, form, phase, timeout=SECONDS)
    left = await engine.wait_left()
    assert SECONDS * 0.85 < left - started < SECONDS + LATE_SECONDS
    assert outcome.failure.code == code_pb2.DEADLINE_EXCEEDED
    assert outcome.reason == "DEADLINE_EXCEEDED"
    assert re.fullmatch(r"The call was not done within its deadline of 0\.[2-5]\d* s\.", outcome.failure.message)
    assert outcome.detail(receipt_pb2.Receipt) == receipt(engine.url)
    await link.idle()
    stats = (await link.ask("get_stats", stats_pb2.GetStatsRequest())).only
    assert stats_plain(stats)["errors_by_type"] == {"DEADLINE_EXCEEDED": 1}
    assert stats.calls.cancelled == 0


@pytest.mark.parametrize("backend", [{"total_timeout": 0.5}], ids=["total"])
async def test_an_engine_that_never_ends(link: Link, engine: LoopEngine) -> None:
    outcome = await call(link, engine, "stream", "chat", "in mid-answer")
    assert outcome.reason == "UPSTREAM_TIMEOUT"
    assert "was not done within 0.5 s (total_timeout)" in outcome.failure.message


@pytest.mark.parametrize("rpc", ["generate", "stream"])
async def test_a_deadline_that_has_passed(link: Link, engine: LoopEngine, rpc: str) -> None:
    engine.answer(Do.HANG)
    if rpc == "generate":
        outcome = await link.generate(unary(**FORMS["chat"]), timeout=0.0)
    else:
        outcome = await link.stream(streamed(**STREAM_FORMS["chat"]), timeout=0.0)
    assert (outcome.failure.code, outcome.reason) == (code_pb2.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("way", WAYS)
async def test_a_deadline_holds_while_backends_are_asked_for_models(engine: LoopEngine, tmp_path: Path, way: str) -> None:
    """The catalogue waits up to three seconds for a backend that hangs; a call does not, if its deadline is shorter."""
    engine.pages["/v1/models"] = Do.HANG
    request = unary(**FORMS["chat"])
    request.call.chat.model = ""
    async with linked(way, config_of(engine.url, backend={"models": []}), tmp_path) as link:
        started = time.monotonic()
        listed = await link.ask("list_models", models_pb2.ListModelsRequest(), timeout=0.2)
        chat = await link.generate(request, timeout=0.2)
        assert time.monotonic() - started < 3.0
    assert [listed.reason, chat.reason] == ["DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"]


async def test_a_router_that_says_nothing() -> None:
    """The channel gives up by itself; its status says as much as the router's would, but for the receipt."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        router = ChannelRouter(f"127.0.0.1:{silent.getsockname()[1]}", max_send_bytes=MIB)
        try:
            with pytest.raises(CallFailed) as raised:
                await router.unary(GENERATE, unary(**FORMS["chat"]), CallContext(timeout=0.2))
        finally:
            await router.close()
    outcome = Outcome(status=status_of(raised.value, max_body=MIB))
    assert (outcome.failure.code, outcome.reason) == (code_pb2.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert outcome.failure.message == "The call was not done within its deadline."
