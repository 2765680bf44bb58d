import asyncio
from typing import Any

import pytest
from tests.support.clock import jumping, now
from tests.support.raw_server import Do, RawServer, chunk, stream, stream_head
from tests.unit.router.engines.engine import make_backend
from tests.unit.router.support import HANG, HEAD, Client, FakeEndpoint, Frames, Step, make_call, make_pool, make_target

from lexora_contract.answer import Head, hops_text
from lexora_contract.port import Sink
from lexora_router.call import Call, Handler, Target
from lexora_router.errors import (
    DeadlineExceeded,
    ModelNotFound,
    QueueFull,
    RouterError,
    UpstreamBroken,
    UpstreamRefused,
    UpstreamTimeout,
)
from lexora_router.layers.rate_limit import Meter
from lexora_router.layers.retry import RetrySettings
from lexora_router.pipeline import Parts, build
from lexora_router.policy.backoff import Backoff
from lexora_router.policy.rate_limiter import RateLimiter
from lexora_router.policy.rate_limits import LimitRules, RateLimits
from lexora_router.policy.retry_budget import RetryBudget
from lexora_router.resume.eligibility import ResumeSource

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
    def __init__(self, *targets: Target) -> None:
        self._targets = targets

    def find(self, model: str) -> tuple[Target, ...]:
        return self._targets if model == "m" else ()

    async def discover(self, model: str) -> tuple[Target, ...]:
        raise ModelNotFound(model)


def meter(**limits: Any) -> Meter:
    return Meter(RateLimiter(LimitRules(RateLimits(**limits)), now()), lambda _: "", lambda _: 1, lambda _: 1, now)


NO_RETRY = RetrySettings(0, Backoff(), respect_retry_after=True, max_retry_after=60.0)


def parts(*targets: Target, **changes: Any) -> Parts:
    fields: dict[str, Any] = {
        "routes": Routes(*targets),
        "recorders": (),
        "pools": {},
        "retry": NO_RETRY,
        "budgets": {target.backend: RetryBudget() for target in targets},
        "meter": None,
        "fallback_on_rate_limit": None,
        "clock": now,
    }
    return Parts(**(fields | changes))


def pipeline(*steps: Step, **changes: Any) -> tuple[Handler, FakeEndpoint, Recorder]:
    endpoint, recorder = FakeEndpoint(*steps), Recorder()
    made = parts(make_target(), recorders=(recorder,), pools={"main": make_pool(endpoint)}, **changes)
    return build(made), endpoint, recorder


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


# -- the layers together


class Turns(FakeEndpoint):
    """Each attempt has a script of its own; the last one goes on."""

    def __init__(self, *turns: list[Step], **fields: Any) -> None:
        super().__init__(**fields)
        self.turns = list(turns)

    async def attempt(self, call: Call, sink: Sink) -> None:
        self.steps = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        await super().attempt(call, sink)


def busy(status: int = 503, *headers: tuple[str, str]) -> UpstreamRefused:
    return UpstreamRefused(status, "application/json", b"{}", headers)


RETRY = RetrySettings(3, Backoff(base=1.0), respect_retry_after=True, max_retry_after=60.0)


@jumping
async def test_without_retries_fallback_and_limits_those_layers_are_left_out() -> None:
    names = []
    handler: Any = build(parts(make_target()))
    while hasattr(handler, "_inner"):
        names.append(type(handler).__name__)
        handler = handler._inner
    assert not {"Retry", "Fallback", "RateLimit"} & set(names)


@jumping
async def test_the_order_of_the_layers() -> None:
    names = []
    handler: Any = build(parts(make_target(), retry=RETRY, meter=meter(), fallback_on_rate_limit=True))
    while hasattr(handler, "_inner"):
        names.append(type(handler).__name__)
        handler = handler._inner
    expected = [
        "Observe",
        "Deadline",
        "RateLimit",
        "Resolve",
        "Fallback",
        "Admission",
        "Retry",
        "Resend",
        "Balance",
        "EngineTimeouts",
    ]
    assert [name for name in names if name in expected] == expected


@jumping
async def test_each_attempt_has_its_span_also_one_that_is_sent_again() -> None:
    names = []
    handler: Any = build(parts(make_target(), retry=RETRY, traced=True))
    while hasattr(handler, "_inner"):
        names.append(type(handler).__name__)
        handler = handler._inner
    assert names[names.index("Retry") :][:4] == ["Retry", "Resend", "TraceAttempt", "Balance"]


@jumping
async def test_a_retry_does_not_queue_again_behind_those_that_wait() -> None:
    endpoint = Turns([busy()], [1.0, HEAD, A], limit=1)
    recorder = Recorder()
    handler = build(parts(make_target(), recorders=(recorder,), pools={"main": make_pool(endpoint)}, retry=RETRY))
    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(handler(make_call(id=str(number), started=now()), Client()))
    order = [call.id for call in endpoint.calls]
    assert order[:2] == ["0", "1"]  # the slot is free for others while "0" waits
    assert "0" in order[2:4]
    assert sorted(order[1:]) == ["0", "1", "2", "3"]
    assert (endpoint.most_in_flight, recorder.statuses) == (1, [200] * 4)


@jumping
async def test_a_silent_engine_costs_one_attempt_and_then_the_fallback_answers() -> None:
    main, backup = FakeEndpoint(HANG), FakeEndpoint(HEAD, A, address="http://b:1")
    handler = build(
        parts(
            make_target(),
            make_target(backend="backup", model="other"),
            pools={"main": make_pool(main), "backup": make_pool(backup, name="backup")},
            fallback_on_rate_limit=True,
        )
    )
    call, client = make_call(started=now()), Client()
    await handler(call, client)
    assert client.events == [HEAD, A]
    assert now() == pytest.approx(1010.0)  # first_token
    receipt = call.receipt
    assert (receipt.backend, receipt.model, receipt.endpoint, receipt.attempts) == ("backup", "other", "http://b:1", 2)
    assert hops_text(receipt.hops) == "main->backup;reason=UPSTREAM_TIMEOUT"
    assert main.in_flight == backup.in_flight == 0


@jumping
async def test_a_full_queue_falls_back_without_a_wait() -> None:
    main, backup = FakeEndpoint(HANG, limit=1), FakeEndpoint(HEAD, A)
    pools = {"main": make_pool(main, max_size=1), "backup": make_pool(backup, name="backup")}
    handler = build(parts(make_target(), make_target(backend="backup"), pools=pools, fallback_on_rate_limit=False))
    stuck = [asyncio.create_task(handler(make_call(started=now()), Client())) for _ in range(2)]
    await main.begun()
    call = make_call(started=now())
    await handler(call, Client())
    assert hops_text(call.receipt.hops) == "main->backup;reason=QUEUE_FULL"
    assert now() == 1000.0
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)
    with pytest.raises(QueueFull):
        await build(parts(make_target(), pools={"main": make_pool(FakeEndpoint(limit=0), timeout=1.0)}))(make_call(), Client())


@jumping
async def test_a_deadline_ends_a_wait_between_attempts_and_in_the_queue() -> None:
    handler, endpoint, recorder = pipeline(busy(503, ("retry-after", "20")), retry=RETRY)
    with pytest.raises(UpstreamRefused):  # the wait would outlast the deadline: the answer at once
        await handler(make_call(started=now(), deadline=now() + 10), Client())
    assert now() == 1000.0
    waiting = build(parts(make_target(), pools={"main": make_pool(FakeEndpoint(limit=0))}))
    with pytest.raises(DeadlineExceeded):
        await waiting(make_call(started=now(), deadline=now() + 10), Client())
    assert now() == pytest.approx(1010.0)
    at_rest(endpoint, recorder, 503)


async def test_a_fallback_after_an_answer_that_showed_nothing_begins_with_its_head() -> None:
    """The first engine dies when all it has sent is the beginning of a character: ids that the client did not ask for."""
    ids = b'{"choices":[{"index":0,"text":"","prompt_token_ids":[1],"token_ids":[2]}]}'
    text = b'{"choices":[{"index":0,"text":"whole","finish_reason":"stop"}]}'
    async with (
        RawServer([stream_head(), chunk(b"data: " + ids + b"\n\n"), Do.RESET]) as dying,
        RawServer([stream(b"data: " + text + b"\n\n", b"data: [DONE]\n\n")]) as well,
    ):
        backends = {"main": make_backend(dying.url), "backup": make_backend(well.url)}
        made = parts(
            *(make_target(backend=name) for name in backends),
            pools={name: backend.pool for name, backend in backends.items()},
            fallback_on_rate_limit=True,
            resumable={"main": ResumeSource(ids=True, text=False, endpoints=lambda: 2)},
        )
        client = Client()
        call = make_call(path="/v1/completions", body=b'{"model":"m","prompt":"a","stream":true}', started=now())
        await build(made)(call, client)
        for backend in backends.values():
            backend.transport.close()
        await asyncio.sleep(0)
    assert [type(event) for event in client.events[:2]] == [Head, Frames]
    assert b"whole" in client.data
    assert (call.receipt.attempts, hops_text(call.receipt.hops)) == (2, "main->backup;reason=UPSTREAM_BROKEN")
