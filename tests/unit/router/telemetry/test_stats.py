import asyncio

from tests.unit.router.support import CHAT, make_call

from lexora_contract.answer import Usage
from lexora_router.call import Call
from lexora_router.errors import Draining, InvalidRequest, ModelNotFound, QueueFull, RateLimited, UpstreamBroken
from lexora_router.telemetry.account import MAX_MODELS, CallRecord
from lexora_router.telemetry.counts import CountsByName
from lexora_router.telemetry.stats import MAX_NAMES, MAX_TENANTS, Stats


def finished(seconds: float = 1.0, attempts: int = 1, usage: Usage | None = None, model: str = "m") -> Call:
    call = make_call(model=model)
    call.receipt.finished_at, call.receipt.attempts, call.receipt.usage, call.receipt.backend = seconds, attempts, usage, "main"
    return call


def ended(stats: Stats, call: Call, status: int = 200, error: BaseException | None = None) -> None:
    stats.begin(call)
    stats.end(CallRecord(call, status, error, call.model))


def totals(counts: CountsByName) -> dict[str, int]:
    return {name: each.total for name, each in counts.items()}


def test_every_way_to_end_is_counted_once() -> None:
    stats = Stats(0.0)
    ended(stats, finished(1.0, usage=Usage(5, 7, 4)))
    ended(stats, finished(2.0, attempts=3, usage=Usage(1, 2)), 502, UpstreamBroken("x"))
    ended(stats, finished(4.0), 499, asyncio.CancelledError())
    ended(stats, finished(8.0, attempts=0), 404, ModelNotFound("ghost"))
    ended(stats, finished(16.0), 500, ZeroDivisionError())
    everything = stats.totals.all
    assert (everything.total, everything.successful, everything.failed, everything.cancelled, stats.active) == (5, 1, 3, 1, 0)
    assert stats.errors == {"UPSTREAM_BROKEN": 1, "MODEL_NOT_FOUND": 1, "INTERNAL": 1}
    assert (everything.tokens_input, everything.tokens_output, everything.tokens_cached) == (6, 9, 4)
    assert (stats.retries, stats.seconds) == (2, 31.0)
    assert stats.totals.success_rate == 0.25
    assert totals(stats.totals.by_path) == {CHAT: 5}
    assert totals(stats.totals.by_backend) == {"main": 5}
    assert stats.totals.by_backend["main"].failed == 3


def test_a_call_counts_for_whom_it_concerns() -> None:
    stats, call, other = Stats(0.0), finished(model="a", usage=Usage(5, 7)), finished(model="b")
    call.user, call.receipt.endpoint = "somebody", "http://e:1"
    other.path, other.receipt.backend = "", ""
    ended(stats, call)
    ended(stats, other, 400, InvalidRequest("x"))
    for places, expected in (
        (stats.totals.by_path, {CHAT: 1, "other": 1}),
        (stats.totals.by_model, {"a": 1, "b": 1}),
        (stats.totals.by_tenant, {"somebody": 1, "anonymous": 1}),
        (stats.totals.by_backend, {"main": 1}),
        (stats.totals.by_endpoint, {"main/http://e:1": 1}),
    ):
        assert totals(places) == expected
    assert (stats.totals.by_tenant["somebody"].tokens_output, stats.totals.by_tenant["anonymous"].failed) == (7, 1)


def test_names_without_end_need_no_memory_without_end() -> None:
    stats, count = Stats(0.0), 5000
    for number in range(count):
        call = finished(model=f"m{number}")
        call.user, call.path = f"user-{number}", f"/{number}"
        call.receipt.backend, call.receipt.endpoint = f"backend-{number}", f"http://e:{number}"
        ended(stats, call)
    for places, most in (
        (stats.totals.by_path, MAX_NAMES),
        (stats.totals.by_backend, MAX_NAMES),
        (stats.totals.by_endpoint, MAX_NAMES),
        (stats.totals.by_model, MAX_MODELS),
        (stats.totals.by_tenant, MAX_TENANTS),
    ):
        assert len(totals(places)) == most + 1
        assert totals(places)["other"] == count - most


def test_tokens_for_nothing_are_counted_by_reason() -> None:
    stats, broken, left, remade = Stats(0.0), finished(), finished(usage=Usage(1, 4)), finished(attempts=2)
    broken.receipt.events, remade.receipt.lost_tokens = 9, 3
    ended(stats, finished(usage=Usage(5, 7)))
    assert stats.wasted == {}
    ended(stats, broken, 502, UpstreamBroken("x"))
    ended(stats, left, 499, asyncio.CancelledError())
    ended(stats, remade)
    assert stats.wasted == {"failed": 9, "client_left": 4, "failed_attempt": 3}


def test_distributions_are_of_calls_that_ended() -> None:
    stats, call = Stats(0.0), finished(2.0)
    stats.begin(call)
    assert stats.windows.since_start().total.distribution().count == 0
    stats.end(CallRecord(call, 502, UpstreamBroken("x"), call.model))
    assert stats.windows.since_start().total.distribution().mean == 2.0
    assert [(each.total, each.failed) for each in stats.windows.history(2.0)] == [(1, 1)]


def test_refusals_are_counted_by_reason_too() -> None:
    stats = Stats(0.0)
    for error in (RateLimited("x", 1.0, "user:a"), QueueFull("x", 1.0), QueueFull("x", 1.0, "queue_timeout"), Draining("x")):
        ended(stats, finished(attempts=0), error.status, error)
    assert stats.rejected == {"rate_limit": 1, "queue_full": 1, "queue_timeout": 1, "draining": 1}
    assert stats.errors == {"RATE_LIMITED": 1, "QUEUE_FULL": 2, "DRAINING": 1}
    assert stats.totals.all.failed == 4
