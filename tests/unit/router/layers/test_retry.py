import asyncio
from datetime import UTC, datetime
from email.utils import format_datetime
from math import inf

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.support import (
    HANG,
    HEAD,
    Client,
    FakeEndpoint,
    FakeLease,
    Frames,
    Scripted,
    Step,
    make_call,
    make_target,
)

from lexora_contract.port import Sink
from lexora_router.call import Call
from lexora_router.errors import (
    DeadlineExceeded,
    NoHealthyEndpoint,
    QueueFull,
    RouterError,
    UpstreamBroken,
    UpstreamFailure,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from lexora_router.layers.deadline import Deadline
from lexora_router.layers.retry import SHORT_SECONDS, Retry, RetrySettings
from lexora_router.policy.backoff import Backoff
from lexora_router.policy.retry_budget import RetryBudget

A = Frames(b"a")
STREAMING: list[Step] = [HEAD, A]
WALL = 1_700_000_000.0  # when the loop's clock is 1000


def wall_clock() -> float:
    return WALL + now() - 1000.0


class Attempts:
    """An inner handler with a script for each attempt, the last one for all that follow; remembers when they came."""

    def __init__(self, *scripts: list[Step]) -> None:
        self.scripts = [Scripted(*steps) for steps in scripts]
        self.at: list[float] = []

    async def __call__(self, call: Call, sink: Sink) -> None:
        script = self.scripts[min(len(self.at), len(self.scripts) - 1)]
        self.at.append(round(now() - 1000.0, 6))
        if call.lease is not None:
            await call.lease.next()
        await script(call, sink)


def retry(
    inner: Attempts,
    *,
    max_retries: int = 3,
    base: float = 1.0,
    max_delay: float = 30.0,
    respect: bool = True,
    max_retry_after: float = 60.0,
    budget: RetryBudget | None = None,
    budgets: dict[str, RetryBudget] | None = None,
    jitter: float = 1.0,
    on_timeout: bool = False,
) -> Retry:
    """By default the wait is the longest that the jitter may give: 1, 2, 4 ... seconds."""
    return Retry(
        inner,
        settings=RetrySettings(max_retries, Backoff(base, 2.0, max_delay), respect, max_retry_after, on_timeout),
        budgets=budgets or {"main": budget or RetryBudget(share=1.0, floor=1000.0)},
        clock=now,
        wall_clock=wall_clock,
        jitter=lambda: jitter,
    )


def one_endpoint(backend: str = "main") -> Call:
    lease = FakeLease(FakeEndpoint())
    return make_call(lease=lease, target=make_target(backend=backend))


def pauses(call: Call) -> list[float]:
    assert isinstance(call.lease, FakeLease)
    return [round(at - 1000.0, 6) for at in call.lease.pauses]


def refused(status: int, retry_after: str | None = None) -> UpstreamRefused:
    headers = () if retry_after is None else (("retry-after", retry_after),)
    return UpstreamRefused(status, "application/json", b"{}", headers)


AGAIN: list[UpstreamFailure] = [
    *(refused(status) for status in (429, 502, 503, 504)),
    UpstreamInvalid("html", 502),
    UpstreamInvalid("html", 503),
    UpstreamUnreachable("refused"),
    UpstreamBroken("reset"),
    UpstreamTimeout("silent", "first token"),
]
ELSEWHERE: list[UpstreamFailure] = [
    *(refused(status) for status in (500, 520, 530, 599)),
    UpstreamInvalid("an empty 200"),
    UpstreamInvalid("html", 500),
    UpstreamInvalid("a redirect", 302),
]
NEVER: list[RouterError] = [
    *(refused(status) for status in (400, 401, 403, 404, 408, 409, 413, 422, 499, 501, 505)),
    UpstreamRefused(500, "application/json", b"{}", blames_request=True),
    UpstreamInvalid("too large", too_large=True),
    UpstreamTimeout("silent", "idle"),
    UpstreamTimeout("silent", "total"),
    QueueFull("full", 3),
    NoHealthyEndpoint("all down"),
    DeadlineExceeded("late"),
]


@pytest.mark.parametrize(("stream", "on_timeout", "attempts"), [(True, False, 2), (False, False, 1), (False, True, 2)])
@jumping
async def test_a_whole_answer_that_was_not_there_in_time_is_asked_for_again_only_on_demand(
    stream: bool, on_timeout: bool, attempts: int
) -> None:
    inner, client = Attempts([UpstreamTimeout("silent", "first token")], STREAMING), Client()
    call = make_call(lease=FakeLease(*[FakeEndpoint()] * 2), target=make_target(), stream=stream)
    if attempts == 1:
        with pytest.raises(UpstreamTimeout):
            await retry(inner, on_timeout=on_timeout)(call, client)
    else:
        await retry(inner, on_timeout=on_timeout)(call, client)
    assert len(inner.at) == attempts


@jumping
async def test_what_works_is_not_repeated() -> None:
    inner, client = Attempts(STREAMING), Client()
    await retry(inner)(one_endpoint(), client)
    assert (client.events, inner.at) == (STREAMING, [0.0])


@pytest.mark.parametrize("failure", AGAIN, ids=repr)
@jumping
async def test_what_may_pass_is_tried_again(failure: UpstreamFailure) -> None:
    inner, client, call = Attempts([failure], STREAMING), Client(), one_endpoint()
    await retry(inner)(call, client)
    assert (client.events, inner.at, pauses(call)) == (STREAMING, [0.0, 1.0], [0.0])


@pytest.mark.parametrize("failure", ELSEWHERE, ids=repr)
@jumping
async def test_an_error_of_the_engine_s_own_making_is_tried_at_one_other_endpoint(failure: UpstreamFailure) -> None:
    inner, client = Attempts([failure], STREAMING), Client()
    await retry(inner)(make_call(lease=FakeLease(*[FakeEndpoint()] * 2), target=make_target()), client)
    assert (client.events, inner.at) == (STREAMING, [0.0, 0.0])
    inner = Attempts([failure])
    with pytest.raises(UpstreamFailure) as raised:  # never at the same one
        await retry(inner)(one_endpoint(), Client())
    assert (raised.value, len(inner.at)) == (failure, 1)


@pytest.mark.parametrize("failure", NEVER, ids=repr)
@jumping
async def test_what_does_not_pass_is_the_answer(failure: RouterError) -> None:
    inner = Attempts([failure], STREAMING)
    with pytest.raises(RouterError) as raised:
        await retry(inner)(one_endpoint(), Client())
    assert raised.value is failure
    assert inner.at == [0.0]


@pytest.mark.parametrize("failure", AGAIN, ids=repr)
@jumping
async def test_never_after_the_client_has_seen_something(failure: UpstreamFailure) -> None:
    inner, client = Attempts([HEAD, failure], STREAMING), Client()
    with pytest.raises(UpstreamFailure) as raised:
        await retry(inner)(one_endpoint(), client)
    assert raised.value is failure
    assert (inner.at, client.events) == ([0.0], [HEAD])


@jumping
async def test_the_second_attempt_may_fail_after_the_first_byte_and_is_not_repeated() -> None:
    inner = Attempts([refused(503)], [HEAD, UpstreamBroken("died")], STREAMING)
    with pytest.raises(UpstreamBroken):
        await retry(inner)(one_endpoint(), Client())
    assert len(inner.at) == 2


@pytest.mark.parametrize("max_retries", [1, 3])
@jumping
async def test_the_last_failure_is_the_answer_when_all_are_used_up(max_retries: int) -> None:
    failures = [UpstreamBroken(str(number)) for number in range(max_retries + 1)]
    scripts: list[list[Step]] = [[failure] for failure in failures]
    inner = Attempts(*scripts, STREAMING)
    with pytest.raises(UpstreamBroken) as raised:
        await retry(inner, max_retries=max_retries)(one_endpoint(), Client())
    assert raised.value is failures[-1]
    assert len(inner.at) == max_retries + 1


# -- how long to wait


@jumping
async def test_the_wait_grows_up_to_its_bound() -> None:
    inner = Attempts([UpstreamBroken("x")])
    with pytest.raises(UpstreamBroken):
        await retry(inner, max_retries=5, max_delay=5.0)(one_endpoint(), Client())
    assert inner.at == [0.0, 1.0, 3.0, 7.0, 12.0, 17.0]


@pytest.mark.parametrize(("jitter", "at"), [(0.0, [0.0, 0.0, 0.0]), (0.5, [0.0, 0.5, 1.5]), (0.25, [0.0, 0.25, 0.75])])
@jumping
async def test_the_wait_is_a_random_part_of_that(jitter: float, at: list[float]) -> None:
    inner = Attempts([UpstreamBroken("x")], [UpstreamBroken("x")], STREAMING)
    await retry(inner, jitter=jitter)(one_endpoint(), Client())
    assert inner.at == at


@pytest.mark.parametrize(("asked", "at"), [("5", 5.0), ("0.2", 1.0), ("0", 1.0), ("-1", 1.0), ("soon", 1.0), ("60", 60.0)])
@jumping
async def test_the_engine_s_retry_after_is_waited_for(asked: str, at: float) -> None:
    inner = Attempts([refused(429, asked)], STREAMING)
    await retry(inner)(one_endpoint(), Client())
    assert inner.at == [0.0, at]


@jumping
async def test_retry_after_may_be_a_date_and_may_come_with_html() -> None:
    date = format_datetime(datetime.fromtimestamp(WALL + 20, UTC), usegmt=True)
    inner = Attempts([refused(503, date)], [UpstreamInvalid("html", 503, "7")], STREAMING)
    await retry(inner)(one_endpoint(), Client())
    assert inner.at == [0.0, 20.0, 27.0]


@jumping
async def test_one_that_asks_for_too_much_gets_no_second_attempt() -> None:
    inner = Attempts([refused(429, "61")], STREAMING)
    with pytest.raises(UpstreamRefused) as raised:
        await retry(inner)(one_endpoint(), Client())
    assert raised.value.retry_after == "61"
    assert (inner.at, now()) == ([0.0], 1000.0)


@pytest.mark.parametrize("asked", ["5", "3600"])
@jumping
async def test_retry_after_can_be_ignored(asked: str) -> None:
    inner = Attempts([refused(429, asked)], STREAMING)
    await retry(inner, respect=False)(one_endpoint(), Client())
    assert inner.at == [0.0, 1.0]


@jumping
async def test_another_endpoint_is_tried_at_once_whatever_the_first_one_asks_for() -> None:
    a, b = FakeEndpoint(), FakeEndpoint()
    call = make_call(lease=FakeLease(a, b), target=make_target())
    inner = Attempts([refused(503, "3600")], [UpstreamBroken("x")], STREAMING)
    await retry(inner)(call, Client())
    assert inner.at == [0.0, 0.0, 2.0]  # then there is none left that was not tried
    assert pauses(call) == [0.0]


@pytest.mark.parametrize(("asked", "rest"), [(None, 1.0), ("5", 5.0), ("3600", inf)])
@jumping
async def test_the_one_that_failed_rests_while_the_call_waits_for_another(asked: str | None, rest: float) -> None:
    lease = FakeLease(FakeEndpoint(), FakeEndpoint())
    await retry(Attempts([refused(503, asked)], STREAMING))(make_call(lease=lease, target=make_target()), Client())
    assert lease.rests == [rest]


GONE = UpstreamUnreachable("refused", "refused")


@pytest.mark.parametrize("failure", [GONE, UpstreamUnreachable("reset"), refused(503)], ids=["gone", "reset", "503"])
@pytest.mark.parametrize("elsewhere", [True, False])
@jumping
async def test_an_address_that_takes_no_connection_is_left_where_another_target_is(
    failure: UpstreamFailure, elsewhere: bool
) -> None:
    inner, call = Attempts([failure], STREAMING), one_endpoint()
    call.elsewhere = elsewhere
    if elsewhere and failure is GONE:
        with pytest.raises(UpstreamUnreachable):
            await retry(inner)(call, Client())
        assert (inner.at, now()) == ([0.0], 1000.0)
    else:
        await retry(inner)(call, Client())
        assert inner.at == [0.0, SHORT_SECONDS if failure is GONE else 1.0]


@pytest.mark.parametrize("waited", [False, True], ids=["refused", "no answer"])
@jumping
async def test_a_dead_single_endpoint_is_reported_after_one_short_retry(waited: bool) -> None:
    """And at once when the attempt has waited for a connection already."""
    inner = Attempts([UpstreamUnreachable("no", "timeout" if waited else "refused")])
    with pytest.raises(UpstreamUnreachable):
        await retry(inner)(one_endpoint(), Client())
    assert inner.at == ([0.0] if waited else [0.0, SHORT_SECONDS])


@jumping
async def test_an_address_that_takes_no_connection_does_not_stand_for_the_others_of_its_pool() -> None:
    call = make_call(lease=FakeLease(FakeEndpoint(), FakeEndpoint()), target=make_target(), elsewhere=True)
    inner = Attempts([GONE], STREAMING)
    await retry(inner)(call, Client())
    assert inner.at == [0.0, 0.0]


# -- within deadline and budget


@pytest.mark.parametrize(("deadline", "attempts"), [(1000.5, 1), (1001.0, 1), (1001.5, 2), (1003.5, 3)])
@jumping
async def test_no_wait_that_would_outlast_the_deadline(deadline: float, attempts: int) -> None:
    inner, call = Attempts([UpstreamBroken("x")]), one_endpoint()
    call.deadline = deadline
    with pytest.raises(UpstreamBroken):
        await Deadline(retry(inner))(call, Client())
    assert len(inner.at) == attempts
    assert now() < deadline


@jumping
async def test_the_budget_bounds_the_retries_of_all_calls() -> None:
    budget = RetryBudget(share=0.2, floor=0.0, window=1e6)
    attempts = 0
    for _ in range(100):
        inner = Attempts([UpstreamBroken("x")])
        with pytest.raises(UpstreamBroken):
            await retry(inner, budget=budget, jitter=0.0)(one_endpoint(), Client())
        attempts += len(inner.at)
    assert attempts == 120


@jumping
async def test_calls_of_one_backend_pay_for_no_retries_of_another() -> None:
    budgets = {name: RetryBudget(share=0.2, floor=0.0, window=1e6) for name in ("main", "backup")}
    for _ in range(100):
        await retry(Attempts(STREAMING), budgets=budgets)(one_endpoint(), Client())
    inner = Attempts([UpstreamBroken("x")])
    with pytest.raises(UpstreamBroken):
        await retry(inner, budgets=budgets, jitter=0.0)(one_endpoint("backup"), Client())
    assert len(inner.at) == 1
    assert [budget.remaining(now()) for budget in budgets.values()] == [20, 0]


@jumping
async def test_what_the_budget_denies_is_the_answer_at_once() -> None:
    inner, failure = Attempts([refused(503)], STREAMING), refused(503)
    inner.scripts[0] = Scripted(failure)
    with pytest.raises(UpstreamRefused) as raised:
        await retry(inner, budget=RetryBudget(share=0.0, floor=0.0))(one_endpoint(), Client())
    assert raised.value is failure
    assert (inner.at, now()) == ([0.0], 1000.0)


@pytest.mark.parametrize(("sound", "attempts"), [(True, 2), (False, 1)])
@jumping
async def test_the_first_retry_at_an_endpoint_that_is_well_overdraws_the_budget(sound: bool, attempts: int) -> None:
    budget = RetryBudget(share=0.2, floor=0.0)
    lease = FakeLease(*(FakeEndpoint() for _ in range(4)))
    lease.sound = sound
    inner = Attempts([UpstreamBroken("x")])
    with pytest.raises(UpstreamBroken):
        await retry(inner, budget=budget)(make_call(lease=lease, target=make_target()), Client())
    assert len(inner.at) == attempts


@jumping
async def test_a_failure_that_is_not_tried_again_costs_no_budget() -> None:
    budget = RetryBudget(share=0.0, floor=1.0, window=1.0)
    for failure in (refused(400), refused(429, "3600")):
        with pytest.raises(UpstreamRefused):
            await retry(Attempts([failure]), budget=budget)(one_endpoint(), Client())
    assert budget.remaining(now()) == 1


# -- clients that leave


@pytest.mark.parametrize("before", [[], STREAMING], ids=["while waiting", "while streaming"])
@jumping
async def test_a_client_that_leaves_ends_the_attempt_and_there_is_no_other(before: list[Step]) -> None:
    inner, client = Attempts([refused(503)], [*before, HANG]), Client()
    task = asyncio.create_task(retry(inner)(one_endpoint(), client))
    await inner.scripts[1].begun()
    await client.got(len(before))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (inner.scripts[1].cancelled, len(inner.at)) == (1, 2)


@jumping
async def test_a_client_that_leaves_between_two_attempts() -> None:
    inner = Attempts([refused(503, "30")], STREAMING)
    call = one_endpoint()
    task = asyncio.create_task(retry(inner)(call, Client()))
    await asyncio.sleep(10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (inner.at, pauses(call)) == ([0.0], [0.0])


@jumping
async def test_a_bug_is_not_tried_again() -> None:
    inner = Attempts([ZeroDivisionError()], STREAMING)
    with pytest.raises(ZeroDivisionError):
        await retry(inner)(one_endpoint(), Client())
    assert inner.at == [0.0]
