"""What the retry settings do, through real processes: how often, how long, how much of the traffic, by file and environment."""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import wire
from tests.support.calls import Answer, Caller
from tests.support.servers import Gateway, Simulator, base_config

MODEL = "qwen3-32b"
CALLS = 30
SLACK_SECONDS = 0.15  # of a busy machine, per attempt
NO_BREAKER = {"failure_threshold": 1_000_000, "min_calls": 1_000_000, "quarantine": False}
NO_BUDGET_BOUND = {"budget": 1.0, "budget_floor": 1000.0}
SETTINGS = NO_BUDGET_BOUND | {
    "max_retries": 4,
    "base_delay": 0.2,
    "exponential_base": 2.0,
    "max_delay": 0.4,
    "max_retry_after": 1.0,
}


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(model=MODEL) as simulator:
        yield simulator


@pytest.fixture
def other() -> Iterator[Simulator]:
    with Simulator(model=MODEL) as simulator:
        yield simulator


def gateway(sim: Simulator, folder: Path, retry: dict[str, Any], *others: Simulator, **env: str) -> Gateway:
    urls = [each.url for each in (sim, *others)]
    config = base_config(main={"urls": urls, "models": [MODEL], "max_concurrency": None})
    config["health"] |= NO_BREAKER
    config["retry"] = retry
    return Gateway(config, folder, env={f"LEXORA_RETRY__{name.upper()}": value for name, value in env.items()})


async def failing(base: str, sim: Simulator, fault: str, count: int = CALLS, **fields: Any) -> list[Answer]:
    """So many calls at once, of an engine that fails all of them."""
    await asyncio.to_thread(sim.clear)
    await asyncio.to_thread(sim.fault, fault)
    async with Caller(base) as caller:
        return await caller.many(count, MODEL, **fields)


def gaps(sim: Simulator) -> list[list[float]]:
    """Seconds between the attempts of each call."""
    came: dict[str, list[float]] = {}
    for request in sim.requests(10_000):
        if request["method"] == "POST" and not request["path"].startswith("/sim/"):
            came.setdefault(request["headers"]["x-request-id"], []).append(request["received"])
    return [[later - earlier for earlier, later in itertools.pairwise(sorted(instants))] for instants in came.values()]


@pytest.mark.serial
async def test_the_waits_grow_by_the_base_up_to_the_bound_with_full_jitter(sim: Simulator, tmp_path: Path) -> None:
    with gateway(sim, tmp_path, SETTINGS) as process:
        answers = await failing(process.http, sim, "status;code=503")
    waits = gaps(sim)
    assert [(answer.status, answer.told["attempts"]) for answer in answers] == [(503, "5")] * CALLS
    assert [len(each) for each in waits] == [4] * CALLS
    first, second, third, fourth = zip(*waits, strict=True)
    for found, bound in ((first, 0.2), (second, 0.4), (third, 0.4), (fourth, 0.4)):
        assert max(found) <= bound + SLACK_SECONDS
        assert max(found) > bound / 2, "so many would not all be short by chance"
        assert min(found) < bound / 2, "jitter is over the whole range"
    assert max(answer.seconds for answer in answers) <= 1.4 + 5 * SLACK_SECONDS


@pytest.mark.serial
async def test_every_delay_can_be_set_by_the_environment(sim: Simulator, tmp_path: Path) -> None:
    shorter = {"max_retries": "2", "base_delay": "0.01", "exponential_base": "1", "max_delay": "0.02"}
    with gateway(sim, tmp_path, SETTINGS, **shorter) as process:
        answers = await failing(process.http, sim, "status;code=503")
    assert [answer.told["attempts"] for answer in answers] == ["3"] * CALLS
    assert max(max(each) for each in gaps(sim)) <= 0.01 + SLACK_SECONDS


async def test_no_retries(sim: Simulator, tmp_path: Path) -> None:
    with gateway(sim, tmp_path, SETTINGS, max_retries="0") as process:
        answers = await failing(process.http, sim, "status;code=503")
    assert [answer.told["attempts"] for answer in answers] == ["1"] * CALLS
    assert sim.stats()["requests"] == CALLS


HINT = "status;code=429;retry_after=0.5"
QUICK = SETTINGS | {"max_retries": 1, "base_delay": 0.01}


@pytest.mark.serial
async def test_what_the_engine_asks_for_is_waited_for(sim: Simulator, tmp_path: Path) -> None:
    with gateway(sim, tmp_path, QUICK) as process:
        answers = await failing(process.http, sim, HINT)
        assert [answer.told["attempts"] for answer in answers] == ["2"] * CALLS
        assert all(0.5 <= each[0] <= 0.5 + SLACK_SECONDS for each in gaps(sim))
        hurried = await failing(process.http, sim, HINT, count=1, headers={"x-request-timeout": "0.4"})
    assert [(answer.status, answer.told["attempts"]) for answer in hurried] == [(429, "1")], "not beyond the call's deadline"
    assert hurried[0].seconds < 0.4


@pytest.mark.serial
@pytest.mark.parametrize(("by_file", "by_env"), [({"respect_retry_after": False}, {}), ({}, {"respect_retry_after": "false"})])
async def test_what_the_engine_asks_for_can_be_ignored(
    sim: Simulator, tmp_path: Path, by_file: dict[str, Any], by_env: dict[str, str]
) -> None:
    with gateway(sim, tmp_path, QUICK | by_file, **by_env) as process:
        answers = await failing(process.http, sim, HINT)
    assert [answer.told["attempts"] for answer in answers] == ["2"] * CALLS
    assert all(each[0] <= 0.01 + SLACK_SECONDS for each in gaps(sim))


@pytest.mark.parametrize(("by_file", "by_env"), [({"max_retry_after": 0.4}, {}), ({}, {"max_retry_after": "0.4"})])
async def test_an_engine_that_asks_for_too_much_is_not_asked_again(
    sim: Simulator, tmp_path: Path, by_file: dict[str, Any], by_env: dict[str, str]
) -> None:
    with gateway(sim, tmp_path, QUICK | by_file, **by_env) as process:
        answers = await failing(process.http, sim, HINT)
    assert [(answer.status, answer.told["attempts"], answer.retry_after) for answer in answers] == [(429, "1", "0.5")] * CALLS


@pytest.mark.serial
async def test_retries_are_a_fifth_of_the_load_at_most(sim: Simulator, tmp_path: Path) -> None:
    per_second, seconds, window, floor = 200, 6.0, 5.0, 3.0
    with gateway(sim, tmp_path, {"max_retries": 3, "base_delay": 0.05}) as process:
        sim.clear()
        sim.fault("status;code=502")
        async with Caller(process.http) as caller:
            answers = await caller.steadily(per_second, seconds, MODEL)
    assert {answer.status for answer in answers} == {502}
    calls, asked = len(answers), sim.stats()["requests"]
    assert asked == sum(int(answer.told["attempts"]) for answer in answers)
    print(f"{calls} calls, {asked} at the engine: {asked / calls:.3f} times the load")
    assert calls * 1.1 < asked <= calls * 1.2 + floor * window
    came = sorted(request["received"] for request in sim.requests(10_000) if request["method"] == "POST")
    steady = [instant for instant in came if came[0] + 1 <= instant < came[0] + seconds - 1]
    assert len(steady) <= (seconds - 2) * per_second * 1.25, "nor more than that for a while"


async def test_retries_are_a_fifth_also_where_another_replica_fails_as_well(
    sim: Simulator, other: Simulator, tmp_path: Path
) -> None:
    engines = (sim, other)
    with gateway(sim, tmp_path, {"max_retries": 3, "base_delay": 0.05}, other) as process:
        for engine in engines:
            engine.clear()
            engine.fault("status;code=502")
        async with Caller(process.http) as caller:
            answers = await caller.steadily(200, 3.0, MODEL)
    assert {answer.status for answer in answers} == {502}
    calls, asked = len(answers), sum(engine.stats()["requests"] for engine in engines)
    print(f"{calls} calls, {asked} at two engines: {asked / calls:.3f} times the load")
    assert calls * 1.1 < asked <= calls * 1.2 + 15


async def test_no_call_of_a_dead_engine_is_lost_to_the_budget(sim: Simulator, other: Simulator, tmp_path: Path) -> None:
    """Unary answers under way at two engines; one is killed. The share of so few calls would not do for half of them."""
    count, slow = 40, {"max_tokens": 20, "ignore_eos": True, "sim_fault": "drip=100"}
    with gateway(sim, tmp_path, {"max_retries": 3, "budget_floor": 0.0}, other) as process:
        sim.clear()
        async with Caller(process.http) as caller:
            calls = asyncio.create_task(caller.many(count, MODEL, **slow))
            await asyncio.to_thread(wire.wait_until, lambda: sim.stats()["running"] + other.stats()["running"] == count, "all")
            victims = other.stats()["running"]
            other.kill()
            answers = await calls
    assert victims > count / 4
    assert {answer.status for answer in answers} == {200}
    assert sum(answer.told["attempts"] == "2" for answer in answers) == victims


async def test_a_quiet_service_may_retry_up_to_the_floor(sim: Simulator, tmp_path: Path) -> None:
    with gateway(sim, tmp_path, {"max_retries": 3, "base_delay": 0.001, "budget": 0.0, "budget_floor": 3.0}) as process:
        answers = await failing(process.http, sim, "status;code=502", count=10)
    assert {answer.status for answer in answers} == {502}
    assert sim.stats()["requests"] == 10 + 15, "three per second, over a window of five"
