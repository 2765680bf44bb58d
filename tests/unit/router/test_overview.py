import asyncio
import json
from typing import cast

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.backends.engine import make_backend
from tests.unit.router.support import CHAT, make_call

from lexora.v1 import models_pb2
from lexora_router.backends.backend import Backend
from lexora_router.backends.probe import Prober
from lexora_router.backends.routes import ModelRoutes, RoutableModel
from lexora_router.config import ModelEntry
from lexora_router.handler import Usage
from lexora_router.overview import Overview
from lexora_router.telemetry.stats import Stats
from lexora_router.version import __version__

HEALTHY, DEGRADED, UNHEALTHY, UNKNOWN = (
    models_pb2.BACKEND_STATUS_HEALTHY,
    models_pb2.BACKEND_STATUS_DEGRADED,
    models_pb2.BACKEND_STATUS_UNHEALTHY,
    models_pb2.BACKEND_STATUS_UNSPECIFIED,
)


class FakeProber:
    def __init__(self, delay: float) -> None:
        self._delay = delay

    async def first_round(self) -> None:
        await asyncio.sleep(self._delay)


class FakeRoutes:
    def __init__(self, *models: RoutableModel) -> None:
        self._models = list(models)

    async def default_model(self) -> str:
        return "m"

    async def models(self) -> list[RoutableModel]:
        return self._models


def overview(
    *backends: Backend, models: tuple[RoutableModel, ...] = (), delay: float = 0.0, stats: Stats | None = None
) -> Overview:
    return Overview(
        {f"b{number}": backend for number, backend in enumerate(backends)},
        cast("ModelRoutes", FakeRoutes(*models)),
        cast("Prober", FakeProber(delay)),
        stats or Stats(str),
        default_for_unknown_task="m",
        probe_timeout=2.0,
        clock=now,
    )


@jumping
async def test_models_are_told_with_what_is_configured_and_what_is_listed() -> None:
    backend = make_backend("http://e:1", type="openai_compatible")
    backend.endpoints[0].healthy = True
    entry = ModelEntry.model_validate({"name": "m", "capabilities": ["code", "analysis"], "description": "A model."})
    listed = b'{"id":"l","max_model_len":4096}'
    models = (RoutableModel("m", backend, entry, 99, b""), RoutableModel("l", backend, None, 4096, listed, alias_of="x"))
    response = await overview(backend, models=models).models()
    assert list(response.available_capabilities) == ["analysis", "code"]
    assert response.default_model_for_unknown_task == "m"
    first, second = response.models
    assert first == models_pb2.Model(
        id="m",
        backend="main",
        backend_type="openai_compatible",
        capabilities=["code", "analysis"],
        description="A model.",
        max_model_len=99,
        status=HEALTHY,
    )
    assert (second.alias_of, list(second.capabilities)) == ("x", ["general"])
    assert json.loads(second.upstream_json) == json.loads(listed)


@pytest.mark.parametrize(
    ("states", "status"),
    [((True, True), HEALTHY), ((True, False), DEGRADED), ((False, False), UNHEALTHY), ((None, None), UNKNOWN)],
)
@jumping
async def test_health_names_every_backend_and_endpoint(states: tuple[bool | None, ...], status: int) -> None:
    backends = [make_backend("http://e:1"), make_backend("http://e:2")]
    for backend, state in zip(backends, states, strict=True):
        backend.endpoints[0].healthy = state
    backends[0].endpoints[0].in_flight = 3
    backends[1].endpoints[0].reason = "because"
    seen = overview(*backends)
    await asyncio.sleep(5)
    health = await seen.health(draining=False)
    assert health.status == status
    assert (health.version, health.uptime_seconds) == (__version__, 5.0)
    assert set(health.backends) == {"b0", "b1"}
    assert health.backends["b0"].endpoints[0].address == "http://e:1"
    assert health.backends["b0"].endpoints[0].in_flight == 3
    assert health.backends["b1"].endpoints[0].reason == "because"


@jumping
async def test_a_router_that_drains_is_unhealthy() -> None:
    backend = make_backend("http://e:1")
    backend.endpoints[0].healthy = True
    assert (await overview(backend).health(draining=True)).status == UNHEALTHY


@pytest.mark.parametrize(("delay", "waited"), [(0.5, 0.5), (1e6, 2.0)])
@jumping
async def test_health_waits_for_the_first_probes_but_not_for_long(delay: float, waited: float) -> None:
    start = now()
    await overview(make_backend("http://e:1"), delay=delay).health(draining=False)
    assert now() - start == pytest.approx(waited)


@jumping
async def test_stats_are_told() -> None:
    backend, stats = make_backend("http://e:1"), Stats(str)
    backend.endpoints[0].in_flight = 2
    call = make_call()
    call.receipt.backend, call.receipt.attempts, call.receipt.finished_at = "main", 3, 4.0
    call.receipt.usage = Usage(5, 7)
    stats.begin(call)
    stats.begin(make_call())
    stats.end(call, 200, None)
    told = overview(backend, stats=stats).stats()
    assert (told.total_requests, told.successful_requests, told.failed_requests, told.active_requests) == (1, 1, 0, 1)
    assert (told.success_rate, told.total_retries, told.average_duration_seconds) == (1.0, 2, 4.0)
    assert (told.total_tokens_input, told.total_tokens_output) == (5, 7)
    assert dict(told.requests_per_endpoint) == {CHAT: 1}
    assert dict(told.requests_per_model) == {"m": 1}
    assert dict(told.requests_per_backend) == {"main": 1}
    assert dict(told.in_flight) == {"http://e:1": 2}


@jumping
async def test_stats_before_the_first_call() -> None:
    told = overview(make_backend("http://e:1")).stats()
    assert (told.total_requests, told.success_rate, told.average_duration_seconds) == (0, 1.0, 0.0)
