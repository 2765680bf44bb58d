import asyncio
import time

import pytest

from lexora_router.config import Config
from lexora_router.config.state import StateConfig
from lexora_router.process.app import RouterApp
from lexora_router.process.shared_state import WorkerOf, link_of
from lexora_router.workers.link import WorkerLink
from lexora_router.workers.plan import Place

VALKEY = StateConfig.model_validate({"url": "valkey://127.0.0.1:1"})


@pytest.mark.parametrize(
    ("config", "worker", "replicas"),
    [
        (StateConfig(), None, None),
        (StateConfig(), WorkerOf(None, 4), None),
        (StateConfig(), WorkerOf("/run/lexora/state.sock", 4), 4),
        (VALKEY, None, 1),
        (VALKEY, WorkerOf(None, 4), 4),
    ],
    ids=["alone", "workers of a facade", "workers", "replica", "workers with a store"],
)
async def test_before_the_store_was_reached_workers_have_a_share_each(
    config: StateConfig, worker: WorkerOf | None, replicas: int | None
) -> None:
    link = link_of(config, time.monotonic, worker)
    assert (None if link is None else link.members) == replicas


async def test_a_worker_s_router_has_that_share() -> None:
    link = WorkerLink(Place(1, 4, -1), asyncio.Event())
    app = RouterApp(Config.model_validate({"state": {"url": "valkey://127.0.0.1:1"}}), link=link)
    assert app.state is not None
    assert app.state.members == 4
