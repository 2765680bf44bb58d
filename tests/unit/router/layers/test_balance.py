import asyncio

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.support import HANG, HEAD, Client, FakeEndpoint, FakeLease, Frames, Scripted, Step, make_call

from lexora_contract.answer import Usage
from lexora_router.call import Outcome
from lexora_router.errors import (
    NoHealthyEndpoint,
    UpstreamBroken,
    UpstreamFailure,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from lexora_router.layers.balance import Balance, attempt
from lexora_router.policy.failures import verdict_of

STREAMING: list[Step] = [HEAD, Frames(b"a")]


@jumping
async def test_the_attempt_is_written_down() -> None:
    endpoint, client = FakeEndpoint(*STREAMING, 3.0), Client()
    lease = FakeLease(endpoint)
    call = make_call(lease=lease)
    await Balance(attempt, clock=now)(call, client)
    assert client.events == STREAMING
    assert call.endpoint is endpoint
    assert (call.receipt.endpoint, call.receipt.attempts) == ("http://e:1", 1)
    assert call.receipt.dispatched_at == now() - 3.0
    assert lease.outcomes == [Outcome.GOOD]


@jumping
async def test_the_dispatch_is_the_first_attempt_s_and_the_endpoint_the_last_one_s() -> None:
    a, b = FakeEndpoint(2.0, UpstreamBroken("x")), FakeEndpoint(*STREAMING, address="http://e:2")
    lease = FakeLease(a, b, wait=1.0)
    call, layer = make_call(lease=lease), Balance(attempt, clock=now)
    with pytest.raises(UpstreamBroken):
        await layer(call, Client())
    await layer(call, Client())
    assert (call.receipt.endpoint, call.receipt.attempts) == ("http://e:2", 2)
    assert call.receipt.dispatched_at == 1001.0
    assert lease.outcomes == [Outcome.FAULT, Outcome.GOOD]


@jumping
async def test_what_an_attempt_before_has_used_is_lost() -> None:
    call, layer = make_call(lease=FakeLease(FakeEndpoint(*STREAMING))), Balance(attempt, clock=now)
    call.receipt.usage = Usage(3, 7)
    await layer(call, Client())
    assert (call.receipt.usage, call.receipt.lost_tokens) == (None, 7)


@jumping
async def test_a_slot_that_never_comes_is_no_attempt() -> None:
    class Refusing(FakeLease):
        async def next(self) -> FakeEndpoint:
            raise NoHealthyEndpoint("all down")

    lease, inner = Refusing(), Scripted()
    call = make_call(lease=lease)
    with pytest.raises(NoHealthyEndpoint):
        await Balance(inner, clock=now)(call, Client())
    assert (inner.calls, lease.outcomes, call.receipt.attempts, call.receipt.dispatched_at) == ([], [], 0, 0.0)


OUTCOMES: list[tuple[UpstreamFailure, Outcome]] = [
    *(
        (UpstreamRefused(status, "application/json", b"{}"), Outcome.NEUTRAL)
        for status in (400, 401, 404, 408, 422, 499, 501, 505)
    ),
    *((UpstreamRefused(status, "application/json", b"{}"), Outcome.BUSY) for status in (429, 503)),
    *((UpstreamRefused(status, "application/json", b"{}"), Outcome.FAULT) for status in (500, 502, 504, 520, 599)),
    (UpstreamInvalid("html", 503), Outcome.BUSY),
    (UpstreamInvalid("html", 502), Outcome.FAULT),
    (UpstreamInvalid("an empty 200"), Outcome.FAULT),
    (UpstreamUnreachable("refused"), Outcome.FAULT),
    (UpstreamBroken("died"), Outcome.FAULT),
    *((UpstreamTimeout("silent", phase), Outcome.FAULT) for phase in ("first token", "idle", "total")),
]


@pytest.mark.parametrize(("failure", "outcome"), OUTCOMES, ids=str)
@pytest.mark.parametrize("before", [[], STREAMING], ids=["before the first event", "after it"])
@jumping
async def test_a_failure_is_told_for_what_it_is_and_goes_on(
    failure: UpstreamFailure, outcome: Outcome, before: list[Step]
) -> None:
    assert verdict_of(failure).outcome is outcome
    lease = FakeLease(FakeEndpoint())
    with pytest.raises(UpstreamFailure) as raised:
        await Balance(Scripted(*before, failure), clock=now)(make_call(lease=lease), Client())
    assert raised.value is failure
    assert lease.outcomes == [outcome]


@pytest.mark.parametrize("before", [[], STREAMING], ids=["while waiting", "while streaming"])
@jumping
async def test_a_client_that_leaves_says_nothing_of_the_endpoint(before: list[Step]) -> None:
    inner, client, lease = Scripted(*before, HANG), Client(), FakeLease(FakeEndpoint())
    task = asyncio.create_task(Balance(inner, clock=now)(make_call(lease=lease), client))
    await inner.begun()
    await client.got(len(before))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (inner.cancelled, inner.running) == (1, 0)
    assert lease.outcomes == [Outcome.NEUTRAL]


@jumping
async def test_a_client_that_leaves_before_the_slot_comes() -> None:
    inner, lease = Scripted(), FakeLease(FakeEndpoint(), wait=1e6)
    task = asyncio.create_task(Balance(inner, clock=now)(make_call(lease=lease), Client()))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (inner.calls, lease.outcomes) == ([], [])


@pytest.mark.parametrize(("stream", "late"), [(False, 1), (True, 0)])
@jumping
async def test_a_whole_answer_that_is_not_there_in_time_is_written_down(stream: bool, late: int) -> None:
    call = make_call(lease=FakeLease(FakeEndpoint()), stream=stream)
    with pytest.raises(UpstreamTimeout):
        await Balance(Scripted(UpstreamTimeout("late", "total")), clock=now)(call, Client())
    assert call.receipt.late_attempts == late


@jumping
async def test_a_bug_says_nothing_of_the_endpoint() -> None:
    lease = FakeLease(FakeEndpoint())
    with pytest.raises(ZeroDivisionError):
        await Balance(Scripted(ZeroDivisionError()), clock=now)(make_call(lease=lease), Client())
    assert lease.outcomes == [Outcome.NEUTRAL]
