import asyncio

from tests.unit.router.support import CHAT, make_call

from lexora_router.errors import Draining, ModelNotFound, QueueFull, RateLimited, UpstreamBroken
from lexora_router.handler import Call, Usage
from lexora_router.telemetry.stats import Stats


def finished(seconds: float = 1.0, attempts: int = 1, usage: Usage | None = None, model: str = "m") -> Call:
    call = make_call(model=model)
    call.receipt.finished_at, call.receipt.attempts, call.receipt.usage, call.receipt.backend = seconds, attempts, usage, "main"
    return call


def ended(stats: Stats, call: Call, status: int = 200, error: BaseException | None = None) -> None:
    stats.begin(call)
    stats.end(call, status, error)


def test_every_way_to_end_is_counted_once() -> None:
    stats = Stats(str)
    ended(stats, finished(1.0, usage=Usage(5, 7)))
    ended(stats, finished(2.0, attempts=3, usage=Usage(1, 2)), 502, UpstreamBroken("x"))
    ended(stats, finished(4.0), 499, asyncio.CancelledError())
    ended(stats, finished(8.0, attempts=0), 404, ModelNotFound("ghost"))
    ended(stats, finished(16.0), 500, ZeroDivisionError())
    assert (stats.total, stats.succeeded, stats.failed, stats.cancelled, stats.active) == (5, 1, 3, 1, 0)
    assert stats.errors == {"UPSTREAM_BROKEN": 1, "MODEL_NOT_FOUND": 1, "INTERNAL": 1}
    assert (stats.tokens_input, stats.tokens_output, stats.retries, stats.seconds) == (6, 9, 2, 31.0)
    assert stats.success_rate == 0.25
    assert stats.per_path == {CHAT: 5}
    assert stats.per_backend == {"main": 5}


def test_refusals_are_counted_by_reason_too() -> None:
    stats = Stats(str)
    for error in (RateLimited("x", 1.0, "user:a"), QueueFull("x", 1.0), QueueFull("x", 1.0, "queue_timeout"), Draining("x")):
        ended(stats, finished(attempts=0), error.status, error)
    assert stats.rejected == {"rate_limit": 1, "queue_full": 1, "queue_timeout": 1, "draining": 1}
    assert stats.errors == {"RATE_LIMITED": 1, "QUEUE_FULL": 2, "DRAINING": 1}
    assert stats.failed == 4


def test_fallbacks_and_resumed_streams_are_counted_however_the_call_ends() -> None:
    stats, call, other = Stats(str), finished(attempts=3), finished(attempts=2)
    call.receipt.fallback = "main->spare;reason=QUEUE_FULL, spare->last;reason=UPSTREAM_TIMEOUT"
    other.receipt.resumed = "text"
    ended(stats, call)
    ended(stats, other, 502, UpstreamBroken("x"))
    assert (stats.fallbacks, stats.resumed, stats.retries, stats.rejected) == (2, 1, 3, {})


def test_names_that_nobody_serves_share_a_place() -> None:
    stats = Stats(lambda model: model if model == "m" else "other")
    for model in ("m", *(f"invented-{i}" for i in range(100))):
        ended(stats, finished(model=model))
    assert stats.per_model == {"m": 1, "other": 100}
