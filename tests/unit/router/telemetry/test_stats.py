import asyncio

from tests.support.clock import jumping
from tests.unit.router.support import CHAT, make_call

from lexora_router.errors import ModelNotFound, UpstreamBroken
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


def test_names_that_nobody_serves_share_a_place() -> None:
    stats = Stats(lambda model: model if model == "m" else "other")
    for model in ("m", *(f"invented-{i}" for i in range(100))):
        ended(stats, finished(model=model))
    assert stats.per_model == {"m": 1, "other": 100}


@jumping
async def test_idle_returns_when_the_last_call_is_over() -> None:
    stats = Stats(str)
    await stats.idle()
    calls = [finished(), finished()]
    for call in calls:
        stats.begin(call)
    waiting = asyncio.create_task(stats.idle())
    for call in calls:
        await asyncio.sleep(1)
        assert not waiting.done()
        stats.end(call, 200, None)
    await waiting
    assert stats.active == 0
