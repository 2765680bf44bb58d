import asyncio

import pytest
from tests.unit.router.support import make_call, make_target

from lexora_router.errors import (
    DeadlineExceeded,
    Draining,
    NoHealthyEndpoint,
    QueueFull,
    RateLimited,
    RouterError,
    UpstreamBroken,
    UpstreamRefused,
)
from lexora_router.handler import Receipt, Usage
from lexora_router.layers.fallback import Fallback
from lexora_router.telemetry.account import Hop, hops, rejection, retries, wasted

REJECTIONS = {
    "rate_limit": RateLimited("x", 1.0, "user:a"),
    "queue_full": QueueFull("x", 1.0),
    "queue_timeout": QueueFull("x", 1.0, "queue_timeout"),
    "deadline": QueueFull("x", 1.0, "deadline"),
    "no_healthy_endpoint": NoHealthyEndpoint("x"),
    "draining": Draining("x"),
}


@pytest.mark.parametrize(("reason", "error"), REJECTIONS.items(), ids=REJECTIONS.keys())
def test_what_the_router_refuses_has_a_reason(reason: str, error: RouterError) -> None:
    assert rejection(error) == reason


@pytest.mark.parametrize(
    "error",
    [
        None,
        DeadlineExceeded("x"),
        UpstreamBroken("x"),
        UpstreamRefused(429, "", b""),
        ZeroDivisionError(),
        asyncio.CancelledError(),
    ],
    ids=repr,
)
def test_everything_else_is_no_rejection(error: BaseException | None) -> None:
    assert rejection(error) == ""


async def test_hops_are_those_that_the_layer_has_made() -> None:
    targets = tuple(make_target(backend=name) for name in ("main", "a-b.c_", "d-"))
    call = make_call()
    call.targets = targets

    async def fails(call: object, emit: object) -> None:
        raise UpstreamBroken("x")

    async def emit(event: object) -> None:
        raise AssertionError

    with pytest.raises(UpstreamBroken):
        await Fallback(fails, on_rate_limit=False)(call, emit)
    assert hops(call.receipt) == [Hop("main", "a-b.c_", "UPSTREAM_BROKEN"), Hop("a-b.c_", "d-", "UPSTREAM_BROKEN")]


def test_a_call_that_went_nowhere_else_has_no_hops() -> None:
    assert hops(Receipt()) == []


@pytest.mark.parametrize(("attempts", "expected"), [(0, 0), (1, 0), (3, 2)])
def test_the_first_attempt_is_no_retry(attempts: int, expected: int) -> None:
    assert retries(Receipt(attempts=attempts)) == expected


def test_wasted_tokens_are_counted_by_the_engine_or_by_events() -> None:
    assert wasted(Receipt()) == 0
    assert wasted(Receipt(events=5)) == 5
    assert wasted(Receipt(events=5, usage=Usage(3, 7))) == 7
