"""A gRPC client that vanishes is a cancellation, never a broken backend: not in the counters, the log or the health."""

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from lexora.v1 import health_pb2, stats_pb2
from lexora.v1.router_pb2_grpc import RouterServiceStub
from lexora_contract.plain import stats_plain
from lexora_contract.port import CallContext
from lexora_contract.rpcs import STREAM
from lexora_router.edge.grpc_reading import Parted
from lexora_router.edge.grpc_servicer import Servicer
from lexora_router.process.app import RouterApp
from tests.contract.messages import STREAM_FORMS, delta, raw_call, streamed, unary
from tests.support.links import channel, gauges, settle
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import Do, Step, chunk, stream_head
from tests.support.tcp_proxy import TcpProxy

WITHIN_SECONDS = 2.0  # of a busy machine; without the cancellation the engine would go on for ever
DRIP: tuple[Step, ...] = (stream_head(), chunk(delta("a")), Do.HANG)
FLOOD: tuple[Step, ...] = (stream_head(), *[chunk(delta("x" * 65_000))] * 100, Do.HANG)


async def check(app: RouterApp, calls: int) -> None:
    """So many calls were cancelled, none failed, and the endpoint is still well."""
    await settle(lambda: not app.active)
    assert gauges(app) == {}
    stats = await app.services.admin.get_stats(stats_pb2.GetStatsRequest(), CallContext())
    assert (stats.calls.total, stats.calls.cancelled, stats.calls.failed) == (calls, calls, 0)
    assert stats_plain(stats)["errors_by_type"] == {}
    health = await app.services.router.health(health_pb2.HealthRequest(), CallContext())
    assert health.status == health_pb2.BACKEND_STATUS_HEALTHY


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Nobody complains; the calls are logged as 499."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    lines = [line for line in capsys.readouterr().out.splitlines() if "call " in line]
    assert lines
    assert all("status=499" in line for line in lines)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("script", [DRIP, FLOOD], ids=["drip", "flood"])
@pytest.mark.parametrize("form", STREAM_FORMS)
async def test_a_cancelled_stream(
    router: tuple[RouterApp, str],
    engine: LoopEngine,
    script: tuple[Step, ...],
    form: str,
) -> None:
    """With FLOOD the router waits in `context.write`, which fails just before its task is cancelled."""
    app, address = router
    engine.answer(*script)
    async with channel(address) as wire:
        calls: list[Any] = [RouterServiceStub(wire).Stream(streamed(**STREAM_FORMS[form])) for _ in range(5)]
        for call in calls:
            await call.read()
        cancelled = time.monotonic()
        for call in calls:
            call.cancel()
        assert await engine.wait_left(5) - cancelled < WITHIN_SECONDS
    await check(app, 5)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("script", [DRIP, FLOOD, (Do.HANG,)], ids=["drip", "flood", "unary"])
async def test_a_connection_that_is_reset(
    router: tuple[RouterApp, str],
    engine: LoopEngine,
    script: tuple[Step, ...],
) -> None:
    app, address = router
    engine.answer(*script)
    async with TcpProxy(address) as proxy, channel(proxy.address) as wire:
        stub = RouterServiceStub(wire)
        if script == (Do.HANG,):
            call: Any = stub.Generate(unary(raw=raw_call()))
            await engine.wait_requests()
        else:
            call = stub.Stream(streamed(**STREAM_FORMS["raw"]))
            await call.read()
        vanished = time.monotonic()
        proxy.reset()
        assert await engine.wait_left() - vanished < WITHIN_SECONDS
        assert (await call.code()).name == "UNAVAILABLE"
    await check(app, 1)


@pytest.mark.usefixtures("quiet")
async def test_a_channel_that_is_closed(
    router: tuple[RouterApp, str],
    engine: LoopEngine,
) -> None:
    app, address = router
    engine.answer(*FLOOD)
    async with channel(address) as wire:
        call: Any = RouterServiceStub(wire).Stream(streamed(**STREAM_FORMS["chat"]))
        await call.read()
    await engine.wait_left()
    await check(app, 1)


@pytest.mark.usefixtures("quiet")
async def test_many_that_vanish_while_they_are_written_to(
    router: tuple[RouterApp, str],
    engine: LoopEngine,
) -> None:
    """Of the writes that wait when their client cancels some fail before the cancellation is known, most do not."""
    app, address = router
    engine.answer(*FLOOD)
    async with channel(address) as wire:
        calls: list[Any] = [RouterServiceStub(wire).Stream(streamed(**STREAM_FORMS["raw"])) for _ in range(60)]
        for call in calls:
            await call.read()
        for call in calls:
            call.cancel()
        await engine.wait_left(60)
    await check(app, 60)


class VanishedContext:
    """A servicer's context whose client is gone, though the task has not been cancelled yet."""

    def __init__(self) -> None:
        self.aborted = False

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def time_remaining(self) -> None:
        return None

    def set_trailing_metadata(self, metadata: object) -> None:
        self.aborted = True

    async def write(self, message: object) -> None:
        raise grpc.aio.InternalError("the batch failed")


@pytest.mark.parametrize("form", STREAM_FORMS)
async def test_a_failed_write_is_a_cancellation(router: tuple[RouterApp, str], engine: LoopEngine, form: str) -> None:
    app, _ = router
    engine.answer(*DRIP)
    context: Any = VanishedContext()
    with pytest.raises(asyncio.CancelledError):
        await Servicer(app.services, 60.0).serving(STREAM)(Parted(streamed(**STREAM_FORMS[form])), context)
    assert not context.aborted
    await engine.wait_left()
    await check(app, 1)
