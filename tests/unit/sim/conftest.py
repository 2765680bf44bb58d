from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from lexora_sim import SimSettings, Simulator

QUICK = {"port": 0, "models": ("tiny",), "embedding_models": ("embed",), "ttft_ms": 0.0, "itl_ms": 0.0}


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """A fast simulator with one chat and one embedding model; everything must be back to zero afterwards."""
    async with Simulator(SimSettings(max_model_len=1024, **QUICK)) as simulator:
        yield simulator


@pytest.fixture
def quick() -> dict[str, object]:
    """Settings for a simulator of the test's own."""
    return dict(QUICK)
