import asyncio

import pytest
from tests.support.clock import jumping
from tests.unit.router.support import HANG, HEAD, Client, Frames, Scripted, Step, make_call, make_target

from lexora_contract.answer import Usage, hops_text
from lexora_contract.port import Sink
from lexora_router.call import Call
from lexora_router.errors import (
    AccessUnavailable,
    ClassifierDisabled,
    ClientStalled,
    DeadlineExceeded,
    Draining,
    InvalidRequest,
    ModelNotFound,
    NoHealthyEndpoint,
    NotFound,
    OutOfResources,
    PermissionDenied,
    QueueFull,
    RateLimited,
    RequestQuarantined,
    RouterError,
    TooLarge,
    TooManyAttempts,
    Unauthenticated,
    Unimplemented,
    UnsupportedByBackend,
    UpstreamBroken,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from lexora_router.layers.fallback import Fallback

A = Frames(b"a")
STREAMING: list[Step] = [HEAD, A]
TARGETS = (make_target(), make_target(backend="b1", model="b1-m"), make_target(backend="b2", model="b2-m"))


class Targets:
    """An inner handler with a script for each backend."""

    def __init__(self, **scripts: list[Step]) -> None:
        self.scripts = {name: Scripted(*steps) for name, steps in scripts.items()}
        self.asked: list[str] = []
        self.seen: list[tuple[str, str]] = []
        self.elsewhere: list[bool] = []

    async def __call__(self, call: Call, sink: Sink) -> None:
        assert call.target is not None
        self.asked.append(call.target.backend)
        self.seen.append((call.receipt.backend, call.receipt.model))
        self.elsewhere.append(call.elsewhere)
        await self.scripts[call.target.backend](call, sink)


def refused(status: int) -> UpstreamRefused:
    return UpstreamRefused(status, "application/json", b"{}")


GOES_ON: list[RouterError] = [
    *(refused(status) for status in (500, 501, 502, 503, 504, 529)),
    UpstreamUnreachable("refused"),
    UpstreamBroken("reset"),
    UpstreamInvalid("html", 502),
    UpstreamInvalid("an empty 200"),
    *(UpstreamTimeout("silent", phase) for phase in ("first token", "idle", "total")),
    NoHealthyEndpoint("open breakers"),
    RequestQuarantined("again", 5.0),
    UnsupportedByBackend("no such field", "n"),
    *(QueueFull("full", 3, cause) for cause in ("queue_full", "queue_timeout", "deadline")),
]
ENDS: list[RouterError] = [
    *(refused(status) for status in (400, 401, 403, 404, 408, 409, 413, 422, 499)),
    InvalidRequest("bad"),
    Unauthenticated("none"),
    PermissionDenied("no"),
    AccessUnavailable("keys"),
    TooManyAttempts("unknown", 2.0),
    ModelNotFound("m"),
    ClassifierDisabled("off"),
    ClientStalled("took nothing"),
    NotFound("path"),
    TooLarge("large"),
    RateLimited("too many", 1.0, "user:a"),
    ClientStalled("took nothing"),
    Unimplemented("later"),
    Draining("bye"),
    OutOfResources("files"),
    DeadlineExceeded("late"),
    RouterError("?"),
]


@jumping
async def test_what_the_first_target_answers_is_the_answer() -> None:
    inner, client, call = Targets(main=STREAMING), Client(), make_call(targets=TARGETS)
    await Fallback(inner, on_rate_limit=True)(call, client)
    assert client.events == STREAMING
    assert (inner.asked, hops_text(call.receipt.hops)) == (["main"], "")
    assert (call.receipt.backend, call.receipt.model) == ("main", "m")


@pytest.mark.parametrize("error", GOES_ON, ids=repr)
@jumping
async def test_the_next_target_is_asked_and_the_receipt_says_so(error: RouterError) -> None:
    inner, client, call = Targets(main=[error], b1=STREAMING), Client(), make_call(targets=TARGETS)
    await Fallback(inner, on_rate_limit=False)(call, client)
    assert client.events == STREAMING
    assert inner.seen == [("main", "m"), ("b1", "b1-m")]
    assert call.target == TARGETS[1]
    assert hops_text(call.receipt.hops) == f"main->b1;reason={error.reason}"


@pytest.mark.parametrize("error", ENDS, ids=repr)
@jumping
async def test_other_errors_are_the_answer(error: RouterError) -> None:
    inner, call = Targets(main=[error], b1=STREAMING), make_call(targets=TARGETS)
    with pytest.raises(RouterError) as raised:
        await Fallback(inner, on_rate_limit=True)(call, Client())
    assert raised.value is error
    assert (inner.asked, hops_text(call.receipt.hops)) == (["main"], "")


@jumping
async def test_a_fallback_that_lacks_what_is_asked_for_hides_no_failure() -> None:
    down = UpstreamUnreachable("refused")
    inner, call = Targets(main=[down], b1=[UnsupportedByBackend("no such field", "n")]), make_call(targets=TARGETS[:2])
    with pytest.raises(UpstreamUnreachable) as raised:
        await Fallback(inner, on_rate_limit=False)(call, Client())
    assert raised.value is down
    assert inner.asked == ["main", "b1"]


def test_the_table_has_every_error() -> None:
    def leaves(kind: type[RouterError]) -> set[type[RouterError]]:
        below = kind.__subclasses__()
        return set().union(*map(leaves, below)) if below else {kind}

    ours = {kind for kind in leaves(RouterError) if kind.__module__.startswith("lexora_router")}
    assert ours <= {type(error) for error in GOES_ON + ENDS}


@pytest.mark.parametrize("on_rate_limit", [True, False])
@jumping
async def test_a_rate_limited_engine_is_configurable(on_rate_limit: bool) -> None:
    inner, call = Targets(main=[refused(429)], b1=STREAMING), make_call(targets=TARGETS)
    layer = Fallback(inner, on_rate_limit=on_rate_limit)
    if on_rate_limit:
        await layer(call, Client())
        assert hops_text(call.receipt.hops) == "main->b1;reason=UPSTREAM_ERROR"
    else:
        with pytest.raises(UpstreamRefused):
            await layer(call, Client())
    assert inner.asked == (["main", "b1"] if on_rate_limit else ["main"])


@jumping
async def test_targets_are_asked_in_order_and_the_last_error_is_the_answer() -> None:
    last = QueueFull("full", 3)
    inner = Targets(main=[UpstreamBroken("x")], b1=[refused(503)], b2=[last])
    call = make_call(targets=TARGETS)
    with pytest.raises(QueueFull) as raised:
        await Fallback(inner, on_rate_limit=True)(call, Client())
    assert raised.value is last
    assert inner.asked == ["main", "b1", "b2"]
    assert inner.elsewhere == [True, True, False]
    assert hops_text(call.receipt.hops) == "main->b1;reason=UPSTREAM_BROKEN, b1->b2;reason=UPSTREAM_ERROR"
    assert (call.receipt.backend, call.receipt.model) == ("b2", "b2-m")


@jumping
async def test_a_client_may_forbid_it() -> None:
    inner, call = Targets(main=[UpstreamBroken("x")], b1=STREAMING), make_call(targets=TARGETS, fallback_allowed=False)
    with pytest.raises(UpstreamBroken):
        await Fallback(inner, on_rate_limit=True)(call, Client())
    assert (inner.asked, inner.elsewhere, hops_text(call.receipt.hops)) == (["main"], [False], "")


@pytest.mark.parametrize("error", [UpstreamBroken("died"), UpstreamTimeout("silent", "idle")])
@jumping
async def test_never_after_the_client_has_seen_something(error: RouterError) -> None:
    inner, client, call = Targets(main=[HEAD, error], b1=STREAMING), Client(), make_call(targets=TARGETS)
    with pytest.raises(RouterError) as raised:
        await Fallback(inner, on_rate_limit=True)(call, client)
    assert raised.value is error
    assert (inner.asked, client.events, hops_text(call.receipt.hops)) == (["main"], [HEAD], "")


@jumping
async def test_what_the_second_target_has_begun_is_not_begun_again() -> None:
    inner = Targets(main=[UpstreamBroken("x")], b1=[HEAD, UpstreamBroken("y")], b2=STREAMING)
    client = Client()
    with pytest.raises(UpstreamBroken, match="y"):
        await Fallback(inner, on_rate_limit=True)(make_call(targets=TARGETS), client)
    assert (inner.asked, client.events) == (["main", "b1"], [HEAD])


@pytest.mark.parametrize("main", [[HANG], [UpstreamBroken("x")]], ids=["at the first", "at the second"])
@pytest.mark.parametrize("before", [[], STREAMING], ids=["while waiting", "while streaming"])
@jumping
async def test_a_client_that_leaves_ends_it(main: list[Step], before: list[Step]) -> None:
    inner = Targets(main=[*before, *main] if main == [HANG] else main, b1=[*before, HANG])
    client = Client()
    task = asyncio.create_task(Fallback(inner, on_rate_limit=True)(make_call(targets=TARGETS), client))
    await inner.scripts["main" if main == [HANG] else "b1"].begun()
    await client.got(len(before))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert inner.asked == (["main"] if main == [HANG] else ["main", "b1"])
    assert sum(script.cancelled for script in inner.scripts.values()) == 1


@jumping
async def test_a_bug_is_no_reason_to_ask_another() -> None:
    inner = Targets(main=[ZeroDivisionError()], b1=STREAMING)
    with pytest.raises(ZeroDivisionError):
        await Fallback(inner, on_rate_limit=True)(make_call(targets=TARGETS), Client())
    assert inner.asked == ["main"]


@jumping
async def test_what_the_first_target_kept_to_itself_is_not_taken_for_the_second_one_s_answer() -> None:
    """An engine may have answered, with nothing in it for the client: a stream that is continued begins that way."""
    call, seen = make_call(targets=TARGETS), []

    async def inner(call: Call, sink: Sink) -> None:
        receipt = call.receipt
        seen.append((receipt.endpoint, receipt.first_event_at, receipt.events, receipt.usage))
        receipt.endpoint, receipt.first_event_at, receipt.events, receipt.usage = "e", 7.0, 3, Usage(1, 2)
        if len(seen) == 1:
            raise UpstreamBroken("died")

    await Fallback(inner, on_rate_limit=True)(call, Client())
    assert seen == [("", 0.0, 0, None)] * 2
    assert call.receipt.usage == Usage(1, 2)
    assert call.receipt.lost_tokens == 2
