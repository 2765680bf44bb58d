import asyncio
from typing import Any

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.support import HANG, HEAD, Client, FakeEndpoint, Step, make_call, make_target

from lexora_router.errors import DeadlineExceeded, ModelNotFound, RouterError, UpstreamBroken, UpstreamTimeout
from lexora_router.handler import Call, Frames, Handler, Target
from lexora_router.pipeline import build

A = Frames(b"a")


class Recorder:
    def __init__(self) -> None:
        self.active = 0
        self.statuses: list[int] = []

    def begin(self, call: Call) -> None:
        self.active += 1

    def end(self, call: Call, status: int, error: BaseException | None) -> None:
        self.active -= 1
        self.statuses.append(status)


class Routes:
    def __init__(self, target: Target) -> None:
        self._target = target

    def find(self, model: str) -> Target | None:
        return self._target if model == "m" else None

    async def discover(self, model: str) -> Target:
        raise ModelNotFound(model)


def pipeline(*steps: Step) -> tuple[Handler, FakeEndpoint, Recorder]:
    endpoint, recorder = FakeEndpoint(*steps), Recorder()
    return build(routes=Routes(make_target(endpoint)), recorders=(recorder,), clock=now), endpoint, recorder


def at_rest(endpoint: FakeEndpoint, recorder: Recorder, status: int) -> None:
    assert (endpoint.in_flight, endpoint.running, recorder.active) == (0, 0, 0)
    assert recorder.statuses == [status]


@jumping
async def test_a_call_passes_through_every_layer() -> None:
    handler, endpoint, recorder = pipeline(1.0, HEAD, A)
    call, client = make_call(started=now()), Client()
    await handler(call, client)
    assert client.events == [HEAD, A]
    receipt = call.receipt
    assert (receipt.backend, receipt.endpoint, receipt.model, receipt.attempts) == ("main", "http://e:1", "m", 1)
    assert call.started <= receipt.dispatched_at < receipt.finished_at == now()
    at_rest(endpoint, recorder, 200)


@pytest.mark.parametrize(
    ("steps", "changes", "error", "status"),
    [
        ([], {"model": "ghost"}, ModelNotFound, 404),
        ([UpstreamBroken("x")], {}, UpstreamBroken, 502),
        ([HEAD, A, UpstreamBroken("x")], {}, UpstreamBroken, 502),
        ([HANG], {}, UpstreamTimeout, 504),
        ([HEAD, A, HANG], {}, UpstreamTimeout, 504),
        ([HANG], {"deadline": 1003.0}, DeadlineExceeded, 504),
        ([HEAD, A, HANG], {"deadline": 1003.0}, DeadlineExceeded, 504),
    ],
)
@jumping
async def test_whatever_goes_wrong_leaves_everything_at_rest(
    steps: list[Step], changes: dict[str, Any], error: type[RouterError], status: int
) -> None:
    handler, endpoint, recorder = pipeline(*steps)
    with pytest.raises(error):
        await handler(make_call(started=now(), **changes), Client())
    if error is ModelNotFound:
        assert endpoint.calls == []
    at_rest(endpoint, recorder, status)


@pytest.mark.parametrize("before", [[], [HEAD, A]], ids=["while waiting", "while streaming"])
@jumping
async def test_a_client_that_leaves_leaves_everything_at_rest(before: list[Step]) -> None:
    handler, endpoint, recorder = pipeline(*before, HANG)
    client = Client()
    task = asyncio.create_task(handler(make_call(started=now()), client))
    await endpoint.begun()
    await client.got(len(before))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert endpoint.cancelled == 1
    at_rest(endpoint, recorder, 499)


@jumping
async def test_a_bug_is_counted_too() -> None:
    handler, endpoint, recorder = pipeline(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await handler(make_call(started=now()), Client())
    at_rest(endpoint, recorder, 500)
