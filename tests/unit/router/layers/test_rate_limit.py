import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.clock import jumping, now
from tests.unit.router.support import HANG, HEAD, Client, Frames, Scripted, Step, make_call

from lexora_contract.answer import BucketState, Head, Reply, Usage
from lexora_contract.port import Sink
from lexora_router.call import Call
from lexora_router.errors import RateLimited, UpstreamBroken, UpstreamTimeout
from lexora_router.layers.rate_limit import Meter, RateLimit
from lexora_router.policy.rate_limiter import RateLimiter
from lexora_router.policy.rate_limits import LimitRules, Part, RateLimits

STREAMING: list[Step] = [HEAD, Frames(b"a")]
ESTIMATE, INPUT = 100, 10


class Engine(Scripted):
    """Uses so many tokens, once it has sent something."""

    def __init__(self, *steps: Step, usage: Usage | None = None) -> None:
        super().__init__(*steps)
        self.usage = usage

    async def __call__(self, call: Call, sink: Sink) -> None:
        await super().__call__(call, _Seen(call, sink, self.usage))


class _Seen:
    """A sink that writes on the call's receipt what an endpoint would."""

    def __init__(self, call: Call, sink: Sink, usage: Usage | None) -> None:
        self.call = call
        self.sink = sink
        self.usage = usage

    def _note(self) -> None:
        self.call.receipt.first_event_at = now()
        self.call.receipt.usage = self.usage

    def head(self, head: Head) -> None:
        self._note()
        self.sink.head(head)

    def frames(self, data: bytes) -> None:
        self._note()
        self.call.receipt.events += 1
        self.sink.frames(data)

    def reply(self, reply: Reply) -> None:
        self._note()
        self.sink.reply(reply)


def limited(
    *steps: Step, usage: Usage | None = None, rules: LimitRules | None = None, **limits: Any
) -> tuple[RateLimit, Engine]:
    fields = {"rate": 1.0, "burst": 2, "tokens_per_minute": None} | limits
    limiter = RateLimiter(rules or LimitRules(RateLimits(**fields)), now())
    inner = Engine(*steps, usage=usage)
    tiers = {"golden": "gold"}
    meter = Meter(limiter, lambda name: tiers.get(name, ""), lambda _: INPUT, lambda _: ESTIMATE, now)
    return RateLimit(inner, meter=meter), inner


async def ask(layer: RateLimit, **changes: Any) -> Call:
    call = make_call(**changes)
    await layer(call, Client())
    return call


async def tokens_left(layer: RateLimit) -> int:
    """As the next call's receipt tells it, that call's own estimate included."""
    call = await ask(layer)
    assert call.receipt.rate_limit is not None
    assert call.receipt.rate_limit.tokens is not None
    return call.receipt.rate_limit.tokens.remaining + ESTIMATE


@jumping
async def test_calls_within_the_limit_pass_and_are_told_where_they_stand() -> None:
    layer, inner = limited(*STREAMING)
    call, client = make_call(), Client()
    await layer(call, client)
    assert client.events == STREAMING
    assert inner.calls == [call]
    assert call.receipt.rate_limit is not None
    assert call.receipt.rate_limit.requests == BucketState(limit=2, remaining=1, reset=1.0)
    assert call.receipt.rate_limit.tokens is None


@jumping
async def test_a_call_over_the_limit_is_refused_with_the_time_to_come_back() -> None:
    layer, inner = limited()
    await ask(layer, user="alice")
    await ask(layer, user="alice")
    call = make_call(user="alice")
    with pytest.raises(
        RateLimited, match=r"The rate limit of `alice` is used up \(requests: 2 at once\); try again in 1\.00 s"
    ) as raised:
        await layer(call, Client())
    assert (raised.value.retry_after, raised.value.subject) == (1.0, "user:alice")
    assert len(inner.calls) == 2
    assert call.receipt.rate_limit is not None
    assert call.receipt.rate_limit.requests == BucketState(2, 0, 2.0)
    await asyncio.sleep(raised.value.retry_after)
    await ask(layer, user="alice")
    assert len(inner.calls) == 3


TOKENS: dict[str, Any] = {"rate": 1000.0, "burst": 1000, "tokens_per_minute": 600}


@jumping
async def test_an_estimate_is_reserved_and_settled_with_what_was_used() -> None:
    layer, _ = limited(*STREAMING, usage=Usage(30, 20), **TOKENS)
    call = await ask(layer)
    assert call.receipt.rate_limit is not None
    assert call.receipt.rate_limit.tokens == BucketState(limit=600, remaining=500, reset=10.0)
    assert await tokens_left(layer) == 550


@jumping
async def test_a_key_with_a_token_limit_in_a_tenant_without_one_is_charged_what_was_used() -> None:
    key = Part("key", "acme", "k1", RateLimits(1e6, 10**6, tokens_per_minute=1000))
    limiter = RateLimiter(LimitRules(RateLimits(1e6, 10**6)), now())
    meter = Meter(limiter, lambda _: "", lambda _: INPUT, lambda _: ESTIMATE, now, lambda _: [key])
    call = await ask(RateLimit(Engine(*STREAMING, usage=Usage(5, 7)), meter=meter))
    assert call.receipt.rate_limit is not None
    assert meter.forecast(make_call(), 0).tokens == BucketState(1000, 988, pytest.approx(12 / (1000 / 60)))


@jumping
async def test_the_reservation_stands_while_the_call_runs() -> None:
    layer, inner = limited(*STREAMING, 1e-3, usage=Usage(1, 0), **TOKENS)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(layer)) for _ in range(6)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimited, match=r"`anonymous` .*\(tokens: 600 per minute\)") as raised:
            await ask(layer)
        assert raised.value.retry_after == pytest.approx(10.0)
        assert len(inner.calls) == 6
    del tasks
    assert await tokens_left(layer) >= 594


@jumping
async def test_more_than_the_estimate_is_charged_as_a_debt() -> None:
    layer, _ = limited(*STREAMING, usage=Usage(1000, 200), **TOKENS)
    await ask(layer)
    with pytest.raises(RateLimited) as raised:
        await ask(layer)
    assert raised.value.retry_after == pytest.approx(70.0)  # 600 over, and 100 for the next, at 10 a second


@pytest.mark.parametrize(
    ("steps", "usage", "left"),
    [
        ([UpstreamBroken("x")], None, 600),  # never reached an engine's answer
        ([*STREAMING, UpstreamBroken("x")], None, 589),  # what went in, and one event
        ([*STREAMING, UpstreamBroken("x")], Usage(5, 5), 590),
        ([*STREAMING, Frames(b"b"), Frames(b"c"), UpstreamBroken("x")], Usage(5, 1), 592),  # counted at its begin only
    ],
)
@jumping
async def test_a_failed_call_is_charged_for_what_it_used(steps: list[Step], usage: Usage | None, left: int) -> None:
    layer, inner = limited(*steps, usage=usage, **TOKENS)
    with pytest.raises(UpstreamBroken):
        await ask(layer)
    inner.steps = []
    assert await tokens_left(layer) == left


@pytest.mark.parametrize(
    ("before", "usage", "left"),
    [([], None, 600), (STREAMING, None, 589), (STREAMING, Usage(10, 2), 588), (STREAMING, Usage(10, 0), 589)],
    ids=["while waiting", "while streaming", "while streaming, usage known", "while streaming, usage of the input known"],
)
@jumping
async def test_a_client_that_leaves_is_charged_for_what_it_used(before: list[Step], usage: Usage | None, left: int) -> None:
    layer, inner = limited(*before, HANG, usage=usage, **TOKENS)
    client = Client()
    task = asyncio.create_task(layer(make_call(), client))
    await inner.begun()
    await client.got(len(before))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    inner.steps = []
    assert await tokens_left(layer) == left


@jumping
async def test_a_refused_call_reserves_nothing() -> None:
    layer, inner = limited(burst=1, rate=1e-3, tokens_per_minute=600)
    await ask(layer)
    for _ in range(5):
        call = make_call()
        with pytest.raises(RateLimited):
            await layer(call, Client())
        assert call.receipt.rate_limit is not None
        assert call.receipt.rate_limit.tokens is not None
        assert call.receipt.rate_limit.tokens.remaining == 600  # the first one never reached an engine
    assert len(inner.calls) == 1


@jumping
async def test_a_whole_stream_that_nobody_counted_costs_the_estimate() -> None:
    layer, inner = limited(*STREAMING, **TOKENS)
    await ask(layer)
    inner.steps = []
    assert await tokens_left(layer) == 500


@pytest.mark.parametrize(("stream", "left"), [(True, 590), (False, 500)])
@jumping
async def test_a_client_that_leaves_an_engine_at_work_is_charged_its_input_or_all_that_may_have_been_made(
    stream: bool, left: int
) -> None:
    layer, inner = limited(HANG, **TOKENS)
    call = make_call(stream=stream)
    task = asyncio.create_task(layer(call, Client()))
    await inner.begun()
    call.receipt.dispatched_at = now()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    inner.steps = []
    assert await tokens_left(layer) == left


@given(st.lists(st.tuples(st.integers(0, 60), st.sampled_from([None, 0, 3, 40]), st.booleans()), max_size=20))
def test_an_interrupted_stream_costs_what_was_surely_spent_and_never_more_than_is_known(
    streams: list[tuple[int, int | None, bool]],
) -> None:
    """Events seen, output that the engine counted last, and whether the client or the engine ended it."""

    @jumping
    async def play() -> None:
        layer, inner = limited(rate=1000.0, burst=1000, tokens_per_minute=60_000_000)
        before = await tokens_left(layer)
        spent = 0
        for events, counted, gone in streams:
            inner.usage = None if counted is None else Usage(INPUT, counted)
            inner.steps = [HEAD, *[Frames(b"a")] * events, asyncio.CancelledError() if gone else UpstreamBroken("x")]
            with pytest.raises((asyncio.CancelledError, UpstreamBroken)):
                await ask(layer)
            spent += INPUT + max(events, counted or 0)
        inner.steps = []
        assert before - await tokens_left(layer) == spent

    play()


@pytest.mark.parametrize(("late", "left"), [(1, 500), (3, 300)])
@jumping
async def test_each_attempt_at_a_whole_answer_that_was_not_there_in_time_costs_the_estimate(late: int, left: int) -> None:
    layer, inner = limited(UpstreamTimeout("late", "first token"), **TOKENS)
    call = make_call(stream=False)
    call.receipt.late_attempts = late
    with pytest.raises(UpstreamTimeout):
        await layer(call, Client())
    inner.steps = []
    assert await tokens_left(layer) == left


@jumping
async def test_an_answer_after_an_attempt_that_was_late_costs_both() -> None:
    layer, inner = limited(*STREAMING, usage=Usage(30, 20), **TOKENS)
    call = make_call(stream=False)
    call.receipt.late_attempts = 1
    await layer(call, Client())
    inner.steps, inner.usage = [], None
    assert await tokens_left(layer) == 450
