import asyncio
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tests.support.clock import jumping, now
from tests.support.servers import metric
from tests.unit.router.support import make_call

from lexora_router.call import Outcome
from lexora_router.config import Config
from lexora_router.fleet.backend import Backend, build_backends
from lexora_router.telemetry.collector import BackendCollector

FIRST, SECOND = "http://e:1", "http://e:2"


def make(**fields: object) -> tuple[Backend, Callable[..., float]]:
    """A backend of two endpoints on the running loop's clock, and how to read a metric of it."""
    main = {"urls": [FIRST, SECOND], **fields}
    config = Config.model_validate(
        {"routing": {"backends": {"main": main}}, "health": {"failure_threshold": 2, "open_time": 5}}
    )
    backends = build_backends(config, now)
    registry = CollectorRegistry()
    registry.register(BackendCollector(lambda: backends, clock=now))
    return backends["main"], lambda name, **labels: metric(generate_latest(registry).decode(), name, backend="main", **labels)


def lines(backend: Backend) -> str:
    registry = CollectorRegistry()
    registry.register(BackendCollector(lambda: {"main": backend}, clock=now))
    return generate_latest(registry).decode()


@pytest.mark.parametrize(("states", "value"), [((True, True), 1), ((True, False), 0.5), ((False, False), 0)])
@jumping
async def test_health_is_absent_until_it_is_known(states: tuple[bool, ...], value: float) -> None:
    backend, _ = make()
    assert "lexora_backend_health{" not in lines(backend)
    for endpoint, state in zip(backend.endpoints, states, strict=True):
        endpoint.condition.found(healthy=state, reason="", now=now())
    assert f'lexora_backend_health{{backend="main"}} {float(value)}' in lines(backend)


@jumping
async def test_places_limits_and_the_queue() -> None:
    backend, value = make(max_concurrency=1)
    leases = [await backend.pool.admit(make_call()) for _ in range(2)]
    waiting = asyncio.create_task(backend.pool.admit(make_call()))
    await asyncio.sleep(0.03)
    assert [value("lexora_endpoint_in_flight", endpoint=address) for address in (FIRST, SECOND)] == [1, 1]
    assert value("lexora_endpoint_limit", endpoint=FIRST) == 1
    assert value("lexora_queue_depth") == 1
    assert value("lexora_queue_bytes") == len(make_call().body) <= value("lexora_queue_bytes_limit")
    for lease in leases:
        lease.close()
    (await waiting).close()
    assert (value("lexora_queue_depth"), value("lexora_queue_bytes"), value("lexora_endpoint_in_flight")) == (0, 0, 0)
    assert value("lexora_queue_seconds_count") == 3
    assert value("lexora_queue_seconds_sum") == pytest.approx(0.03)
    assert [value("lexora_queue_seconds_bucket", le=bound) for bound in ("0.025", "0.05", "+Inf")] == [2, 3, 3]


@jumping
async def test_without_a_limit_there_is_no_such_series() -> None:
    backend, _ = make(type="openai_compatible")
    assert "lexora_endpoint_limit{" not in lines(backend)


@jumping
async def test_a_breaker_is_seen_to_open_and_to_close() -> None:
    backend, value = make()

    def seen() -> tuple[float, float]:
        return value("lexora_breaker_state", endpoint=FIRST), value("lexora_endpoint_available", endpoint=FIRST)

    condition = backend.endpoints[0].condition
    assert seen() == (0, 1)
    for _ in range(2):
        condition.ended(condition.begin(now()), Outcome.FAULT, now())
    assert seen() == (2, 0)
    await asyncio.sleep(6)
    assert seen() == (1, 1)
    permit = condition.begin(now())
    assert seen() == (1, 0)
    condition.ended(permit, Outcome.GOOD, now())
    assert seen() == (0, 1)
    condition.found(healthy=False, reason="down", now=now())
    assert seen() == (0, 0)


@jumping
async def test_attempts_are_counted_by_outcome() -> None:
    backend, value = make()
    for outcome in (Outcome.GOOD, Outcome.GOOD, Outcome.BUSY, Outcome.NEUTRAL):
        lease = await backend.pool.admit(make_call())
        await lease.next()
        lease.ended(outcome)
        lease.close()
    seen = {outcome.value: value("lexora_attempts_total", outcome=outcome.value) for outcome in Outcome}
    assert seen == {"good": 2, "fault": 0, "busy": 1, "neutral": 1}
