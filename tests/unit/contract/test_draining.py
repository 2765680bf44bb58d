import asyncio
import time
from typing import Any

import pytest
from google.rpc import code_pb2

from lexora.v1.health_pb2 import HealthRequest
from lexora.v1.router_pb2 import GenerateRequest, GenerateResponse
from lexora_contract.draining import DrainingPort
from lexora_contract.port import CallContext, CallFailed
from lexora_contract.rpcs import GENERATE, HEALTH


class SlowRouter:
    """A port whose calls last until `done`; `leave` is how the last one was left."""

    def __init__(self) -> None:
        self.begun, self.done = asyncio.Event(), asyncio.Event()
        self.cancelled = 0

    async def unary(self, rpc: object, request: GenerateRequest, context: CallContext) -> GenerateResponse:
        self.begun.set()
        try:
            await self.done.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return GenerateResponse()

    def __getattr__(self, name: str) -> Any:
        async def never(*_: object) -> None:
            raise AssertionError(f"{name} was called")

        return never


async def started(port: DrainingPort, inner: SlowRouter) -> asyncio.Task[GenerateResponse]:
    task = asyncio.create_task(port.unary(GENERATE, GenerateRequest(), CallContext()))
    await inner.begun.wait()
    return task


def reason(error: CallFailed) -> str:
    return error.reason


async def test_a_drain_waits_for_the_calls_under_way() -> None:
    inner = SlowRouter()
    port = DrainingPort(inner)
    call = await started(port, inner)
    assert port.active == 1
    drain = asyncio.create_task(port.drain(5))
    await asyncio.sleep(0)
    assert not drain.done()
    inner.done.set()
    await drain
    assert await call == GenerateResponse()
    assert port.active == 0


async def test_a_drain_refuses_new_calls_and_does_not_make_them() -> None:
    port = DrainingPort(SlowRouter())
    await port.drain(5)
    for call in (port.unary(GENERATE, GenerateRequest(), CallContext()), port.unary(HEALTH, HealthRequest(), CallContext())):
        with pytest.raises(CallFailed) as refused:
            await call
        assert refused.value.code == code_pb2.UNAVAILABLE
        assert reason(refused.value) == "DRAINING"


async def test_a_drain_has_an_end() -> None:
    inner = SlowRouter()
    port = DrainingPort(inner)
    call = await started(port, inner)
    began = time.monotonic()
    await port.drain(0.05)
    assert time.monotonic() - began < 2
    assert not call.done()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


async def test_what_is_left_ends_with_an_error_that_says_why() -> None:
    inner = SlowRouter()
    port = DrainingPort(inner)
    call = await started(port, inner)
    port.abort()
    with pytest.raises(CallFailed) as ended:
        await call
    assert reason(ended.value) == "DRAINING"
    assert inner.cancelled == 1
    assert call.cancelling() == 0
    assert port.active == 0


async def test_a_client_that_leaves_is_a_cancellation_as_ever() -> None:
    inner = SlowRouter()
    port = DrainingPort(inner)
    call = await started(port, inner)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert port.active == 0


async def test_a_client_that_leaves_while_its_call_is_aborted_gets_no_answer() -> None:
    inner = SlowRouter()
    port = DrainingPort(inner)
    call = await started(port, inner)
    port.abort()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_an_abort_hits_the_calls_under_way_only() -> None:
    inner = SlowRouter()
    port = DrainingPort(inner)
    port.abort()
    inner.done.set()
    assert await port.unary(GENERATE, GenerateRequest(), CallContext()) == GenerateResponse()
