import asyncio
from collections.abc import Callable

import pytest
from tests.support.clock import jumping
from tests.unit.router.support import HANG, HEAD, Client, Frames, Scripted, Step, make_call, make_target

from lexora_router.call import Call, Handler
from lexora_router.errors import UpstreamBroken
from lexora_router.layers.trace import TraceAttempt, TraceQueue

STREAMING: list[Step] = [HEAD, Frames(b"a")]
LAYERS = pytest.mark.parametrize(
    ("layer", "begun", "ended"), [(TraceQueue, "waits", "gave_up"), (TraceAttempt, "tries", "tried")], ids=["queue", "attempt"]
)


class Tracing:
    def __init__(self) -> None:
        self.told: list[str] = []

    def waits(self) -> None:
        self.told.append("waits")

    def gave_up(self, call: Call, error: BaseException) -> None:
        self.told.append(f"gave_up {type(error).__name__}")

    def tries(self, call: Call) -> None:
        self.told.append("tries")

    def tried(self, call: Call, error: BaseException | None) -> None:
        self.told.append(f"tried {type(error).__name__}")


def traced(tracing: Tracing) -> Call:
    call = make_call(target=make_target())
    call.tracing = tracing
    return call


@jumping
async def test_a_call_that_goes_well() -> None:
    tracing, client = Tracing(), Client()
    await TraceQueue(TraceAttempt(Scripted(*STREAMING)))(traced(tracing), client)
    assert client.events == STREAMING
    assert tracing.told == ["waits", "tries", "tried NoneType"]


@pytest.mark.parametrize("before", [[], STREAMING], ids=["before the first event", "after it"])
@LAYERS
@jumping
async def test_a_failure_is_told_and_goes_on(
    layer: Callable[[Handler], Handler], begun: str, ended: str, before: list[Step]
) -> None:
    tracing, error = Tracing(), UpstreamBroken("gone")
    with pytest.raises(UpstreamBroken) as raised:
        await layer(Scripted(*before, error))(traced(tracing), Client())
    assert raised.value is error
    assert tracing.told == [begun, f"{ended} UpstreamBroken"]


@pytest.mark.parametrize("before", [[], STREAMING], ids=["while waiting", "while streaming"])
@LAYERS
@jumping
async def test_a_client_that_leaves(layer: Callable[[Handler], Handler], begun: str, ended: str, before: list[Step]) -> None:
    tracing, inner, client = Tracing(), Scripted(*before, HANG), Client()
    task = asyncio.create_task(layer(inner)(traced(tracing), client))  # type: ignore[arg-type]  # a handler is a coroutine
    await inner.begun()
    await client.got(len(before))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tracing.told == [begun, f"{ended} CancelledError"]


@LAYERS
@jumping
async def test_a_call_that_nobody_writes_down(layer: Callable[[Handler], Handler], begun: str, ended: str) -> None:
    inner, client = Scripted(*STREAMING), Client()
    call = make_call(target=make_target())
    await layer(inner)(call, client)
    assert (client.events, inner.calls) == (STREAMING, [call])
