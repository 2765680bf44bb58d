"""Users and models without end: what the gateway tells and what it holds stay as they are."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.load import client
from tests.support.loop_engine import LoopEngine
from tests.support.process import Process, python
from tests.support.raw_server import reply
from tests.support.servers import Gateway, base_config
from tests.support.strangers import resident, series, shape

MIB = 2**20
FEW, DEFAULT = 1000, 100_000  # users that are remembered
COUNTS = {FEW: (10_000, 50_000), DEFAULT: (5_000, 20_000)}
# Buckets and a name: by default all of these users are remembered.
BYTES_PER_USER = 500
NOISE_BYTES = 2 * MIB
SERVED_BYTES = 4 * MIB  # lines of the log that wait to be written are in it
SERVED = (1500, 5000)
WORKERS = 32
ANSWER = b'{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":5,"completion_tokens":7}}'

pytestmark = pytest.mark.timeout(180)  # a hundred thousand calls


@pytest.fixture(scope="module")
def told() -> dict[int, list[dict[str, Any]]]:
    """What two routers tell after some and after many calls, by how many users they remember."""
    with ExitStack() as stack:
        routers = {
            users: stack.enter_context(Process(python("tests.support.strangers", *map(str, (users, *counts)))))
            for users, counts in COUNTS.items()
        }
        assert [router.wait(120) for router in routers.values()] == [0, 0], [router.output for router in routers.values()]
        return {users: [json.loads(line) for line in router.lines] for users, router in routers.items()}


@pytest.mark.parametrize("users", [FEW, DEFAULT])
def test_fifty_thousand_users_and_models_add_no_series(told: dict[int, list[dict[str, Any]]], users: int) -> None:
    some, many = told[users]
    assert (some["calls"], many["calls"]) == COUNTS[users]
    assert many["series"] == some["series"]
    assert many["stats"] == some["stats"]
    assert len(many["series"]) < 300
    assert len(many["stats"]) < 3000


@pytest.mark.parametrize(("users", "bytes_per_user"), [(FEW, 0), (DEFAULT, BYTES_PER_USER)])
def test_memory_is_what_the_users_that_are_remembered_take(
    told: dict[int, list[dict[str, Any]]], users: int, bytes_per_user: int
) -> None:
    some, many = told[users]
    more = COUNTS[users][1] - COUNTS[users][0]
    assert many["resident"] - some["resident"] < more * bytes_per_user + NOISE_BYTES


@pytest.fixture
async def engine() -> AsyncIterator[LoopEngine]:
    """It serves whatever model it is asked for."""
    async with LoopEngine() as engine:
        engine.answer(reply(ANSWER))
        yield engine


async def test_thousands_that_are_served_add_no_series(engine: LoopEngine, tmp_path: Path) -> None:
    config = base_config(main={"url": engine.url}) | {"rate_limit": {"max_users": FEW, "default_rate": 1e6}}
    with Gateway(config, tmp_path) as gateway:
        async with client(gateway.http) as one:
            numbers = iter(range(SERVED[1]))

            async def work(most: int) -> None:
                for number in islice(numbers, most):
                    body = {"model": f"model-{number}", "user": f"user-{number}", "messages": []}
                    assert (await one.post("/v1/chat/completions", body)).status == 200

            found = []
            for more in (SERVED[0], SERVED[1] - SERVED[0]):
                await asyncio.gather(*(work(more // WORKERS) for _ in range(WORKERS)))
                found.append(await asyncio.to_thread(_look, gateway))
        some, many = found
        assert many[:2] == some[:2]
        assert many[2] - some[2] < SERVED_BYTES


def _look(gateway: Gateway) -> tuple[list[str], list[str], int]:
    with httpx.Client(base_url=gateway.http, verify=False) as http:
        stats = http.get("/stats").raise_for_status().json()
        return series(http.get("/metrics").raise_for_status().text), shape(stats), resident(gateway.pid)
