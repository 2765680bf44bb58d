import asyncio
import gc
import weakref

import pytest
from tests.support.clock import jumping, now
from tests.support.links import settle
from tests.unit.router.support import HANG, HEAD, Client, Frames, Scripted, Step, make_call

from lexora_contract.port import Sink
from lexora_router.call import Call
from lexora_router.errors import Draining, RouterError, UpstreamBroken, UpstreamRefused
from lexora_router.layers.observe import CLIENT_GONE, Observe


class Recorder:
    def __init__(self) -> None:
        self.active = 0
        self.ends: list[tuple[Call, int, BaseException | None]] = []

    def begin(self, call: Call) -> None:
        self.active += 1

    def end(self, call: Call, status: int, error: BaseException | None) -> None:
        self.active -= 1
        self.ends.append((call, status, error))


def observed(*steps: Step) -> tuple[Observe, Recorder, Scripted]:
    recorder, inner = Recorder(), Scripted(*steps)
    return Observe(inner, recorders=(recorder,), clock=now), recorder, inner


@jumping
async def test_a_success_is_told_once_with_its_end() -> None:
    layer, recorder, _ = observed(HEAD, Frames(b"a"), 2.5)
    call, client = make_call(started=now()), Client()
    await layer(call, client)
    assert client.events == [HEAD, Frames(b"a")]
    assert recorder.ends == [(call, 200, None)]
    assert call.receipt.finished_at - call.started == pytest.approx(2.5)
    assert recorder.active == 0


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UpstreamBroken("gone"), 502),
        (UpstreamRefused(422, "application/json", b"{}"), 422),
        (RouterError("?"), 500),
        (ZeroDivisionError(), 500),
    ],
)
@pytest.mark.parametrize("before", [[], [HEAD, Frames(b"a")]], ids=["before the first event", "after it"])
@jumping
async def test_a_failure_is_told_with_its_status_and_goes_on(error: Exception, status: int, before: list[Step]) -> None:
    layer, recorder, _ = observed(*before, error)
    call = make_call()
    with pytest.raises(type(error)) as raised:
        await layer(call, Client())
    assert raised.value is error
    assert recorder.ends == [(call, status, error)]
    assert recorder.active == 0


@pytest.mark.parametrize("before", [[], [HEAD, Frames(b"a")]], ids=["while waiting", "while streaming"])
@jumping
async def test_a_client_that_leaves_is_told_as_499(before: list[Step]) -> None:
    layer, recorder, inner = observed(*before, HANG)
    client = Client()
    task = asyncio.create_task(layer(make_call(), client))
    await inner.begun()
    assert recorder.active == 1
    await client.got(len(before))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [(_, status, error)] = recorder.ends
    assert status == CLIENT_GONE
    assert isinstance(error, asyncio.CancelledError)
    assert recorder.active == inner.running == 0


@jumping
async def test_every_recorder_is_told() -> None:
    recorders = (Recorder(), Recorder())
    await Observe(Scripted(), recorders=recorders, clock=now)(make_call(), Client())
    assert [len(recorder.ends) for recorder in recorders] == [1, 1]


@jumping
async def test_a_failure_does_not_wait_for_the_garbage_collector() -> None:
    """Frames and errors that know each other would keep what each failed call had in memory."""

    async def failing(call: Call, sink: Sink) -> None:
        raise UpstreamBroken("gone")

    layer = Observe(failing, recorders=(), clock=now)
    gc.disable()
    try:
        try:
            await layer(make_call(), Client())
        except UpstreamBroken as error:
            gone = weakref.ref(error)
        assert gone() is None
    finally:
        gc.enable()


@jumping
async def test_a_call_that_the_router_ends_itself_is_no_client_that_left() -> None:
    layer, recorder, inner = observed(HEAD, HANG)
    call = make_call()
    task = asyncio.create_task(layer(call, Client()))
    await settle(lambda: bool(inner.calls))
    call.aborted = True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [(_, status, error)] = recorder.ends
    assert (status, type(error)) == (503, Draining)
