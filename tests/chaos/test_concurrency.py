"""`concurrency: auto` between real processes: the limit finds the load that the engine bears, and the rest waits here."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import pytest

from tests.support.servers import Gateway, Simulator, base_config, metric, plain

MODEL = "qwen3-32b"
MOST = 64
WORKERS = 48
CROWD = 128
SECONDS = 8.0  # of load; the limit is looked at in the second half
LOOK_EVERY = 0.1
KNEE = 8  # calls at which an engine that only gets slower does half of all that it could ever do
SOFT = ("--ttft-ms", "40", "--itl-ms", "2", "--prefill-slowdown", str(1 / KNEE), "--decode-slowdown", str(1 / KNEE))
BATCH = 12  # more wait inside the engine, whose decoding also slows with every call in the batch
MUCH = 3 * BATCH  # of slots: a busy machine makes every first token late, which hides a part of the engine's own delay
TIMING = ("--itl-ms", "4", "--decode-slowdown", "0.05", "--max-num-seqs", str(BATCH))


def gateway_for(sim: Simulator, folder: Path, most: int = MOST) -> Gateway:
    backend = {"url": sim.url, "models": [MODEL], "concurrency": "auto", "min_concurrency": 2, "max_concurrency": most}
    return Gateway(base_config(main=backend | {"scrape_interval": 0.2}), folder)


@asynccontextmanager
async def load(base: str, body: dict[str, Any], workers: int) -> AsyncIterator[aiohttp.ClientSession]:
    """So many clients, each asking again as soon as it has its answer; every answer must be good."""
    stop = asyncio.Event()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(base, connector=connector) as session:

        async def client() -> None:
            while not stop.is_set():
                async with session.post("/v1/chat/completions", json=body) as response:
                    text = await response.text()
                    assert response.status == 200, text

        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(client())
            yield session
            stop.set()


async def look(session: aiohttp.ClientSession) -> dict[str, float]:
    async with session.get("/metrics") as response:
        text = await response.text()
    names = ("lexora_endpoint_limit", "lexora_endpoint_in_flight", "lexora_queue_depth")
    return {name: metric(text, name, backend="main") for name in names}


async def settled(base: str, body: dict[str, Any], workers: int = WORKERS) -> list[dict[str, float]]:
    """What was seen in the second half of the load."""
    seen = []
    async with load(base, body, workers) as session:
        until = time.monotonic() + SECONDS
        while (now := time.monotonic()) < until:
            found = await look(session)
            assert found["lexora_endpoint_in_flight"] <= max(MOST, workers)
            if now > until - SECONDS / 2:
                seen.append(found)
            await asyncio.sleep(LOOK_EVERY)
    return seen


def chat(tokens: int, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": tokens} | more


def usual(seen: list[dict[str, float]], name: str) -> float:
    return median(found[name] for found in seen)


async def test_the_limit_settles_near_the_batch_of_an_engine_that_tells_how_many_wait(tmp_path: Path) -> None:
    with Simulator(*TIMING, model=MODEL) as sim, gateway_for(sim, tmp_path) as gateway:
        seen = await settled(gateway.http, chat(20, stream=True))
        assert re.search(r"engine_metrics.*read.*True", plain(gateway.output))
    assert BATCH * 0.6 <= usual(seen, "lexora_endpoint_limit") <= MUCH
    assert usual(seen, "lexora_queue_depth") >= WORKERS - MUCH, "who does not fit into the engine must wait here"


@pytest.mark.serial  # times are all that the limit goes by
async def test_an_engine_without_metrics_is_judged_by_its_first_tokens(tmp_path: Path) -> None:
    with Simulator(*TIMING, model=MODEL) as sim, gateway_for(sim, tmp_path) as gateway:
        sim.fault("status;code=404", path="/metrics")
        seen = await settled(gateway.http, chat(40, stream=True))
        assert re.search(r"engine_metrics.*read.*False", plain(gateway.output))
    assert BATCH * 0.6 <= usual(seen, "lexora_endpoint_limit") <= MUCH
    assert usual(seen, "lexora_queue_depth") >= WORKERS - MUCH


@pytest.mark.serial  # times are all that the limit goes by
async def test_an_engine_that_says_nothing_and_only_gets_slower_is_not_filled(tmp_path: Path) -> None:
    with Simulator(*SOFT, model=MODEL) as sim, gateway_for(sim, tmp_path, CROWD) as gateway:
        sim.fault("status;code=404", path="/metrics")
        seen = await settled(gateway.http, chat(5, stream=True), CROWD)
    # It comes down from all of them by a tenth a round; a slow machine is still on its way.
    assert KNEE <= usual(seen, "lexora_endpoint_limit") <= CROWD * 0.75
    assert usual(seen, "lexora_queue_depth") >= CROWD / 8


async def test_an_engine_that_bears_everything_gets_everything(tmp_path: Path) -> None:
    with Simulator("--itl-ms", "5", model=MODEL) as sim, gateway_for(sim, tmp_path) as gateway:
        seen = await settled(gateway.http, chat(20, stream=True))
        assert usual(seen, "lexora_endpoint_limit") >= WORKERS
        assert sim.stats()["max_running"] == WORKERS
