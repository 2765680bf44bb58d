"""Processes that the tests of one module share: a simulated engine with a steady beat, and a gateway in front of it."""

from collections.abc import Iterator

import pytest

from tests.support.servers import Gateway, Simulator, base_config

MODEL = "qwen3-32b"


@pytest.fixture(scope="module")
def beat() -> float:
    """Milliseconds between tokens."""
    return 5.0


@pytest.fixture(scope="module")
def sim(beat: float) -> Iterator[Simulator]:
    with Simulator("--itl-ms", str(beat), "--max-num-seqs", "1000", model=MODEL) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def gateway(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = base_config(main={"url": sim.url, "models": [MODEL]})
    with Gateway(config, tmp_path_factory.mktemp("gateway")) as process:
        yield process
