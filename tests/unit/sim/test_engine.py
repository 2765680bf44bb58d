from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from lexora_sim import SimSettings, Simulator
from lexora_sim.engine.clock import Clock
from lexora_sim.engine.metrics import Histogram
from lexora_sim.engine.prefix_cache import PrefixCache
from tests.unit.sim.helpers import HELLO, call, chat, complete, post, until


def start(**settings: Any) -> Simulator:
    return Simulator(SimSettings(**{"port": 0, "models": ("tiny",), "ttft_ms": 0.0, "itl_ms": 1.0, **settings}))


async def test_sequences_beyond_the_limit_wait_in_order() -> None:
    async with start(max_num_seqs=2) as sim:
        order: list[int] = []

        async def one(number: int) -> None:
            # The first two last until all have come.
            await complete(sim, f"p{number}", max_tokens=20 if number > 1 else 300)
            order.append(number)

        tasks = []
        for number in range(6):
            tasks.append(asyncio.create_task(one(number)))
            await until(lambda n=number: sim.app.stats.requests == n + 1)
        assert (sim.app.scheduler.running, sim.app.scheduler.waiting) == (2, 4)
        text = (await call(sim, "GET", "/metrics")).body.decode()
        assert 'vllm:num_requests_running{engine="0",model_name="tiny"} 2.0' in text
        assert 'vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 4.0' in text
        await asyncio.gather(*tasks)
        assert [set(order[i : i + 2]) for i in (0, 2, 4)] == [{0, 1}, {2, 3}, {4, 5}]
        assert sim.app.scheduler.max_running == 2


async def test_priority_overtakes() -> None:
    async with start(max_num_seqs=1, priority_scheduling=True) as sim:
        order: list[int] = []

        async def one(priority: int) -> None:
            # The first lasts until all have come.
            await complete(sim, "p", max_tokens=5 if priority else 300, priority=priority)
            order.append(priority)

        tasks = []
        for number, priority in enumerate((0, 5, 3, -1)):
            tasks.append(asyncio.create_task(one(priority)))
            await until(lambda n=number: sim.app.stats.requests == n + 1)
        await asyncio.gather(*tasks)
        assert order == [0, -1, 3, 5]
        assert [record.priority for record in sim.app.stats.records] == [0, 5, 3, -1]


async def test_a_full_queue_refuses() -> None:
    async with start(max_num_seqs=1, max_queued=1) as sim:
        tasks = []
        for number in range(2):
            tasks.append(asyncio.create_task(chat(sim, max_tokens=200)))
            await until(lambda n=number: sim.app.scheduler.running + sim.app.scheduler.waiting == n + 1)
        answer = await chat(sim)
        assert (answer.status, answer.json()["error"]["code"]) == (503, 503)
        assert [(await task).status for task in tasks] == [200, 200]
        text = (await call(sim, "GET", "/metrics")).body.decode()
        assert 'vllm:admission_rejections_total{model_name="tiny",reason="max_num_queued_reqs"} 1.0' in text


async def test_preempts_when_the_cache_is_full_and_says_the_same() -> None:
    alone: dict[int, str] = {}
    async with start(max_model_len=200) as sim:
        for number in range(3):
            alone[number] = (await complete(sim, f"p{number}", max_tokens=90)).json()["choices"][0]["text"]
    async with start(max_model_len=200, kv_capacity_tokens=200) as sim:
        answers = await asyncio.gather(*[complete(sim, f"p{number}", max_tokens=90) for number in range(3)])
        assert {number: answer.json()["choices"][0]["text"] for number, answer in enumerate(answers)} == alone
        scheduler = sim.app.scheduler
        assert scheduler.metrics["tiny"].preemptions > 0
        assert (scheduler.kv_used, scheduler.running, scheduler.waiting) == (0, 0, 0)


async def test_a_prompt_waits_for_room_in_the_cache() -> None:
    async with start(max_model_len=100, kv_capacity_tokens=100) as sim:
        ids = list(range(20, 80))
        tasks = [asyncio.create_task(complete(sim, ids, max_tokens=10)) for _ in range(2)]
        await until(lambda: sim.app.scheduler.waiting == 1)
        assert sim.app.scheduler.running == 1
        assert sim.app.scheduler.kv_used / sim.app.scheduler.kv_capacity >= 0.6
        assert [(await task).status for task in tasks] == [200, 200]


async def test_prefix_cache_counts_blocks() -> None:
    async with start(itl_ms=0.0, prompt_tokens_details=True) as sim:
        ids = [20 + number % 200 for number in range(100)]
        first = (await complete(sim, ids, max_tokens=1)).json()["usage"]["prompt_tokens_details"]["cached_tokens"]
        second = (await complete(sim, ids, max_tokens=1)).json()["usage"]["prompt_tokens_details"]["cached_tokens"]
        other = (await complete(sim, ids[:40] + [300] * 60, max_tokens=1)).json()
        assert (first, second, other["usage"]["prompt_tokens_details"]["cached_tokens"]) == (0, 96, 32)
        metrics = sim.app.scheduler.metrics["tiny"]
        assert (metrics.prefix_queries, metrics.prefix_hits) == (300, 128)


def test_prefix_cache_forgets_the_oldest() -> None:
    cache = PrefixCache(64)
    a, b = list(range(33)), list(range(100, 165))
    assert cache.touch(a) == 0
    assert cache.touch(a) == 32
    cache.touch(b)
    assert cache.touch(a) == 0


async def test_timing() -> None:
    async with start(ttft_ms=30.0, itl_ms=10.0, prefill_rate=1000.0) as sim:
        started = time.monotonic()
        await complete(sim, list(range(20, 60)), max_tokens=4)
        assert 0.095 < time.monotonic() - started < 1.0
        text = (await call(sim, "GET", "/metrics")).body.decode()
        assert 'vllm:time_to_first_token_seconds_bucket{engine="0",le="0.06",model_name="tiny"} 0.0' in text
        assert 'vllm:time_to_first_token_seconds_count{engine="0",model_name="tiny"} 1.0' in text
        assert 'vllm:inter_token_latency_seconds_count{engine="0",model_name="tiny"} 3.0' in text


async def test_decode_slows_down_with_company() -> None:
    async with start(itl_ms=4.0, decode_slowdown=1.0) as sim:
        started = time.monotonic()
        await asyncio.gather(*[complete(sim, "x", max_tokens=6) for _ in range(4)])
        assert time.monotonic() - started > 0.06


async def test_first_tokens_slow_down_with_company() -> None:
    async with start(ttft_ms=10.0, itl_ms=0.0, prefill_slowdown=2.0) as sim:
        started = time.monotonic()
        await asyncio.gather(*[complete(sim, "x", max_tokens=1) for _ in range(4)])
        assert time.monotonic() - started > 0.07


async def test_coalesced_tokens() -> None:
    async with start(itl_ms=0.0, coalesce=4) as sim:
        answer = await chat(sim, max_tokens=30, stream=True, return_token_ids=True)
        sizes = [len(event["choices"][0]["token_ids"]) for event in answer.events()[1:-1]]
        assert sizes == [4] * 7 + [2]


async def test_finish_reasons_are_counted() -> None:
    async with start(itl_ms=0.0, natural_length=8) as sim:
        await chat(sim, max_tokens=4)
        await chat(sim, max_tokens=400)
        finished = sim.app.scheduler.metrics["tiny"].finished
        assert (finished["length"], finished["stop"]) == (1, 1)
        text = (await call(sim, "GET", "/metrics")).body.decode()
        assert 'vllm:request_success_total{engine="0",finished_reason="length",model_name="tiny"} 1.0' in text
        assert 'vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.0' in text
        assert 'vllm:num_requests_running{engine="0",model_name="tiny"} 0.0' in text


async def test_load() -> None:
    async with start() as sim:
        task = asyncio.create_task(post(sim, "/v1/chat/completions", {**HELLO, "max_tokens": 50}))
        await until(lambda: sim.app.scheduler.running == 1)
        assert (await call(sim, "GET", "/load")).json() == {"server_load": 1}
        await task


def test_histogram() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)
    assert histogram.buckets() == [("1.0", 2), ("2.0", 3), ("+Inf", 4)]
    assert (histogram.count, histogram.total) == (4, 12.0)


async def test_clock_keeps_order() -> None:
    loop = asyncio.get_running_loop()
    clock, seen = Clock(loop), list[str]()
    done = asyncio.Event()
    now = clock.now()
    clock.at(now + 0.02, lambda: seen.append("late"))
    clock.at(now + 0.005, lambda: seen.append("early"))
    clock.at(now + 0.03, done.set)
    clock.soon(lambda: seen.append("soon"))
    async with asyncio.timeout(1):
        await done.wait()
    assert seen == ["soon", "early", "late"]


@pytest.mark.parametrize("wrong", [{"models": ()}, {"coalesce": 0}, {"itl_ms": -1.0}, {"kv_capacity_tokens": 10}])
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|needed"):
        SimSettings(**wrong)
