import time

import pytest

from lexora_router.config.state import StateConfig
from lexora_router.process.shared_state import WorkerOf, link_of

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
