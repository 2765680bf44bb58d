from __future__ import annotations

import asyncio
import time

import pytest

from lexora_sim import SimSettings, Simulator
from lexora_sim.engine.metrics import ModelMetrics
from tests.unit.sim.helpers import HELLO, encode_request, until


def metrics(sim: Simulator) -> ModelMetrics:
    return sim.app.scheduler.metrics["tiny"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_is_seen_at_once(quick: dict[str, object], *, stream: bool) -> None:
    async with Simulator(SimSettings(**{**quick, "itl_ms": 20.0})) as sim:  # type: ignore[arg-type]  # test settings
        reader, writer = await asyncio.open_connection(sim.host, sim.port)
        body = {**HELLO, "stream": stream, "max_tokens": 900, "ignore_eos": True}
        writer.write(encode_request("POST", "/v1/chat/completions", body))
        if stream:
            await reader.readuntil(b"data: ")
        await until(lambda: sim.app.scheduler.running == 1 and metrics(sim).generation_tokens > 2)
        left = time.monotonic()
        writer.close()
        await until(lambda: sim.app.stats.aborts == 1)
        record = sim.app.stats.records[-1]
        assert record.aborted
        assert record.disconnect_seen is not None
        assert record.disconnect_seen - left < 0.05
        assert record.tokens_sent > 2
        scheduler = sim.app.scheduler
        assert (scheduler.running, scheduler.waiting, scheduler.kv_used) == (0, 0, 0)
        assert metrics(sim).finished["abort"] == 0
        seen = metrics(sim).generation_tokens
        await asyncio.sleep(0.05)
        assert metrics(sim).generation_tokens == seen


async def test_leaving_while_waiting(quick: dict[str, object]) -> None:
    settings = {**quick, "itl_ms": 5.0, "max_num_seqs": 1}
    async with Simulator(SimSettings(**settings)) as sim:  # type: ignore[arg-type]  # test settings
        writers = []
        for _ in range(3):
            _, writer = await asyncio.open_connection(sim.host, sim.port)
            body = {**HELLO, "max_tokens": 900, "ignore_eos": True}
            writer.write(encode_request("POST", "/v1/chat/completions", body))
            writers.append(writer)
        await until(lambda: sim.app.scheduler.waiting == 2)
        writers[1].close()
        await until(lambda: sim.app.scheduler.waiting == 1)
        writers[0].close()
        await until(lambda: sim.app.scheduler.waiting == 0 and sim.app.scheduler.running == 1)
        writers[2].close()
        await until(lambda: sim.app.stats.aborts == 3)
        assert sim.app.scheduler.running == 0


async def test_a_reader_that_does_not_read_stalls_its_sequence_only(quick: dict[str, object]) -> None:
    async with Simulator(SimSettings(**quick)) as sim:  # type: ignore[arg-type]  # test settings
        reader, writer = await asyncio.open_connection(sim.host, sim.port, limit=1024)
        body = {**HELLO, "stream": True, "max_tokens": 32_000, "ignore_eos": True}
        writer.write(encode_request("POST", "/v1/chat/completions", body))
        running = sim.app.scheduler._running  # looking inside is the point here
        await until(lambda: any(sequence.stalled for sequence in running), seconds=5)
        seen = metrics(sim).generation_tokens
        assert seen < 32_000
        while metrics(sim).generation_tokens == seen:
            assert await reader.read(65536)
        writer.close()
        await until(lambda: sim.app.scheduler.running == 0)
