"""The same router seen in three ways; every test that takes `link` runs once for each."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lexora_router.config import Config
from lexora_router.process.app import RouterApp
from tests.support.links import WAYS, Link, linked, running
from tests.support.loop_engine import LoopEngine

BODY_LIMIT = 2 * 1024 * 1024


def config_of(url: str, *, backend: dict[str, Any] | None = None, **sections: Any) -> Config:
    """A router in front of the engine at `url`, which has the models "m" and "vec"."""
    main = {"url": url, "connect_timeout": 10.0, "models": ["m", "vec"], **(backend or {})}
    routing = {"default_backend": "main", "backends": {"main": main}}
    server = {"max_body_bytes": BODY_LIMIT, "drain_timeout": 5.0}
    # One attempt, always let in, one breaker that stays closed: what an attempt comes to is what these tests look at.
    calm = {
        "rate_limit": {"enabled": False},
        "retry": {"max_retries": 0},
        "health": {"failure_threshold": 1000, "min_calls": 1000},
    }
    return Config.model_validate({"routing": routing, "server": server, **calm, **sections})


@pytest.fixture
async def engine() -> AsyncIterator[LoopEngine]:
    async with LoopEngine("m", "vec") as engine:
        yield engine


@pytest.fixture
def backend() -> dict[str, Any]:
    """Further keys of the backend's configuration; tests override it by parametrisation."""
    return {}


@pytest.fixture(params=WAYS)
async def link(
    request: pytest.FixtureRequest, engine: LoopEngine, backend: dict[str, Any], tmp_path: Path
) -> AsyncIterator[Link]:
    """A router in front of `engine`. At the end every gauge must be back to zero."""
    async with linked(request.param, config_of(engine.url, backend=backend), tmp_path) as link:
        yield link
        await link.idle()
        await engine.until(lambda: not engine.busy)


@pytest.fixture
async def router(engine: LoopEngine, backend: dict[str, Any]) -> AsyncIterator[tuple[RouterApp, str]]:
    """A router in front of `engine`, and the target of its gRPC server."""
    async with running(config_of(engine.url, backend=backend)) as (app, address):
        yield app, address
