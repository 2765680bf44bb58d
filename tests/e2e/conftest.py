"""Processes that the tests of one module share: an engine, and a gateway in front of it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.servers import Gateway, Simulator, calm_config

MODEL = "qwen3-32b"
EMBEDDING_MODEL = "embed-small"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator("--embedding-model", EMBEDDING_MODEL, "--itl-ms", "1", model=MODEL) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def gateway(sim: Simulator, folder: Path) -> Iterator[Gateway]:
    main = {"url": sim.url, "models": [MODEL, EMBEDDING_MODEL]}
    with Gateway(calm_config(main=main), folder) as process:
        yield process


@pytest.fixture
def http(gateway: Gateway, sim: Simulator) -> Iterator[httpx.Client]:
    """A client of the gateway; the simulator has no faults and no memories when the test begins."""
    sim.clear()
    with httpx.Client(base_url=gateway.http, timeout=10, verify=False) as client:
        yield client
