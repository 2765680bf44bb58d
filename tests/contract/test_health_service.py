"""grpc.health.v1, by which load balancers and orchestrators judge the router."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from lexora_router.process.app import RouterApp
from tests.contract.conftest import config_of
from tests.support.links import channel, running
from tests.support.loop_engine import LoopEngine

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
SERVICES = ["", "lexora.v1.AdminService", "lexora.v1.RouterService"]


@pytest.fixture
async def health(engine: LoopEngine) -> AsyncIterator[tuple[RouterApp, HealthStub]]:
    """A router that probes often, and its health service."""
    config = config_of(engine.url, health={"interval": 0.05, "timeout": 1.0})
    async with running(config) as (app, address), channel(address) as wire:
        yield app, HealthStub(wire)


async def check(stub: HealthStub, service: str) -> int:
    answer: Any = await stub.Check(HealthCheckRequest(service=service))
    return int(answer.status)


async def test_check(health: tuple[RouterApp, HealthStub]) -> None:
    for service in SERVICES:
        assert await check(health[1], service) == SERVING
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await check(health[1], "lexora.v1.Nothing")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("service", SERVICES)
async def test_watch_sees_the_last_backend_die_and_come_back(
    health: tuple[RouterApp, HealthStub], engine: LoopEngine, service: str
) -> None:
    app, stub = health
    watch: Any = stub.Watch(HealthCheckRequest(service=service), timeout=5)
    assert (await watch.read()).status == SERVING
    await engine.die()
    assert (await watch.read()).status == NOT_SERVING
    assert await check(stub, service) == NOT_SERVING
    await engine.listen()
    assert (await watch.read()).status == SERVING
    await app.drain()
    assert (await watch.read()).status == NOT_SERVING
    assert await check(stub, service) == NOT_SERVING
    watch.cancel()


async def test_a_drain_is_not_undone_by_a_probe(health: tuple[RouterApp, HealthStub], engine: LoopEngine) -> None:
    app, stub = health
    await app.drain()
    await engine.die()
    await engine.listen()
    probed = engine.gets
    await engine.until(lambda: engine.gets >= probed + 3)
    for service in SERVICES:
        assert await check(stub, service) == NOT_SERVING


async def test_a_watch_for_a_service_that_there_is_not(health: tuple[RouterApp, HealthStub]) -> None:
    watch: Any = health[1].Watch(HealthCheckRequest(service="lexora.v1.Nothing"), timeout=5)
    assert (await watch.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()
