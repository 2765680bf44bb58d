"""Breakers, ejection and recovery between real processes."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import wire
from tests.support.calls import Answer, Caller
from tests.support.servers import Gateway, Simulator, base_config, metric
from tests.support.tcp_proxy import TcpProxy

MODEL = "qwen3-32b"
CLOSED, HALF_OPEN, OPEN = 0.0, 1.0, 2.0
ENDLESS = 1_000_000
OPEN_TIME = 0.6
FIRST_TOKEN_TIMEOUT = 0.5
HEALTH = {"failure_threshold": 3, "open_time": OPEN_TIME, "max_open_time": 5.0, "slow_start": 0.0}


@pytest.fixture(scope="module")
def engines() -> Iterator[list[Simulator]]:
    with contextlib.ExitStack() as stack:
        # A kept connection that is reset as it is used is no fault yet, and these tests count faults.
        yield [stack.enter_context(Simulator("--no-keep-alive", model=MODEL)) for _ in range(4)]


@pytest.fixture(autouse=True)
def _well(engines: list[Simulator]) -> None:
    for engine in engines:
        engine.clear()


def gateway(folder: Path, health: dict[str, Any], retry: dict[str, Any], **backends: dict[str, Any]) -> Gateway:
    config = base_config(**backends)
    config["health"] |= HEALTH | health
    config["retry"] = {"base_delay": 0.01, "max_delay": 0.05} | retry
    return Gateway(config, folder)


def state(process: Gateway, engine: Simulator) -> float:
    return process.metric("lexora_breaker_state", endpoint=engine.url)


def state_of(process: Gateway) -> float:
    """State of the only breaker."""
    return process.metric("lexora_breaker_state")


def available(process: Gateway, engines: list[Simulator]) -> list[float]:
    """Which endpoints of `main` should get calls, at one instant."""
    text = httpx.get(f"{process.http}/metrics", verify=False).text
    return [metric(text, "lexora_endpoint_available", endpoint=engine.url, backend="main") for engine in engines]


def requests(engine: Simulator) -> int:
    return int(engine.stats()["requests"])


def statuses(answers: list[Answer]) -> list[int]:
    return [answer.status for answer in answers]


async def until_open(caller: Caller, process: Gateway, engine: Simulator, count: int = 3) -> None:
    """Let an engine fail so often."""
    for number in range(count):
        await caller.call(MODEL, user=f"tenant-{number}")
    assert state(process, engine) == OPEN


async def test_it_opens_lets_one_trial_through_and_closes(engines: list[Simulator], tmp_path: Path) -> None:
    engine = engines[0]
    main = {"url": engine.url, "models": [MODEL], "first_token_timeout": FIRST_TOKEN_TIMEOUT}
    with gateway(tmp_path, {}, {"max_retries": 0}, main=main) as process:
        async with Caller(process.http) as caller:
            engine.fault("status;code=500")
            await until_open(caller, process, engine)
            refused = await caller.many(10, MODEL)
            assert statuses(refused) == [503] * 10
            assert {answer.code for answer in refused} == {"no_healthy_endpoint"}
            assert all(answer.retry_after for answer in refused)
            assert requests(engine) == 3, "an open breaker lets nothing through"

            # Half-open: a trial that hangs is the only one, and opens it again, for longer.
            engine.clear()
            engine.fault("hang")
            await asyncio.to_thread(wire.wait_until, lambda: state(process, engine) == HALF_OPEN, "half-open")
            began = asyncio.get_running_loop().time()
            trials = await caller.many(10, MODEL)
            assert sorted(statuses(trials)) == [503] * 9 + [504]
            assert requests(engine) == 1
            assert state(process, engine) == OPEN

            engine.clear()
            await asyncio.to_thread(wire.wait_until, lambda: state(process, engine) == HALF_OPEN, "half-open again")
            assert asyncio.get_running_loop().time() - began > FIRST_TOKEN_TIMEOUT + OPEN_TIME * 1.5
            assert (await caller.call(MODEL)).status == 200
            assert state(process, engine) == CLOSED
            assert statuses(await caller.many(10, MODEL)) == [200] * 10


async def test_an_engine_that_dies_in_every_stream_is_left_alone(engines: list[Simulator], tmp_path: Path) -> None:
    engine = engines[0]
    main = {"url": engine.url, "models": [MODEL]}
    with gateway(tmp_path, {"open_time": 5.0}, {"max_retries": 0}, main=main) as process:
        async with Caller(process.http) as caller:
            engine.fault("die_after=2")
            answers = [await caller.call(MODEL, stream=True) for _ in range(4)]
            assert statuses(answers) == [200] * 3 + [503]
            assert answers[3].code == "no_healthy_endpoint"
            assert (state(process, engine), requests(engine)) == (OPEN, 3)


async def test_a_unary_trial_holds_up_the_only_endpoint_for_no_longer_than_it_was_open(
    engines: list[Simulator], tmp_path: Path
) -> None:
    engine = engines[0]
    with gateway(tmp_path, {}, {"max_retries": 0}, main={"url": engine.url, "models": [MODEL]}) as process:
        async with Caller(process.http) as caller:
            engine.fault("status;code=500")
            await until_open(caller, process, engine)
            engine.clear()
            await asyncio.to_thread(wire.wait_until, lambda: state(process, engine) == HALF_OPEN, "half-open")
            trial = asyncio.create_task(caller.call(MODEL, sim_fault="hang"))
            await asyncio.to_thread(wire.wait_until, lambda: requests(engine) == 1, "the trial")
            assert (await caller.call(MODEL)).status == 503, "one trial"
            async with asyncio.timeout(30):  # the trial that hangs ends after the engine's minutes
                while (await caller.call(MODEL)).status != 200:
                    pass
            assert (state(process, engine), requests(engine), trial.done()) == (CLOSED, 2, False)
            assert statuses(await caller.many(10, MODEL)) == [200] * 10
            trial.cancel()
            await asyncio.gather(trial, return_exceptions=True)
        await asyncio.to_thread(wire.wait_idle, process.http)


async def test_calls_go_elsewhere_while_it_is_open(engines: list[Simulator], tmp_path: Path) -> None:
    bad, good, spare = engines[:3]
    main = {"urls": [bad.url, good.url], "models": [MODEL], "fallback_backends": ["spare"]}
    backends: dict[str, dict[str, Any]] = {
        "main": main,
        "spare": {"url": spare.url, "models": ["other"], "fallback_models": {MODEL: MODEL}},
    }
    with gateway(tmp_path, {"open_time": 5.0}, {"max_retries": 1}, **backends) as process:
        async with Caller(process.http) as caller:
            bad.fault("reset")
            while state(process, bad) != OPEN:
                assert (await caller.call(MODEL)).status == 200
            before = requests(bad)
            answers = await caller.many(40, MODEL)
            assert {(answer.status, answer.told["backend"], answer.told["attempts"]) for answer in answers} == {
                (200, "main", "1")
            }
            assert requests(bad) == before == 3

            good.fault("reset")
            while state(process, good) != OPEN:
                assert (await caller.call(MODEL)).status == 200
            answers = await caller.many(40, MODEL)
            assert statuses(answers) == [200] * 40
            assert {answer.told["fallback"] for answer in answers} == {"main->spare;reason=NO_HEALTHY_ENDPOINT"}
            forbidden = await caller.call(MODEL, {"x-lexora-fallback": "never"})
            assert (forbidden.status, forbidden.code) == (503, "no_healthy_endpoint")


async def test_what_is_not_the_engines_fault_never_opens_it(engines: list[Simulator], tmp_path: Path) -> None:
    engine = engines[0]
    with gateway(tmp_path, {"min_calls": 5}, {"max_retries": 0}, main={"url": engine.url, "models": [MODEL]}) as process:
        async with Caller(process.http) as caller:
            for code in (400, 404, 422, 429, 503):
                engine.fault(f"status;code={code}")
                assert statuses(await caller.many(50, MODEL)) == [code] * 50
                assert state(process, engine) == CLOSED
                engine.clear()
                assert (await caller.call(MODEL)).status == 200


async def test_ejection_leaves_half_of_the_pool(engines: list[Simulator], tmp_path: Path) -> None:
    """Three of four break every answer in the middle: outliers by their ends, while their breakers stay closed."""
    health = {"failure_threshold": ENDLESS, "failure_rate": 0.7, "min_calls": 10, "max_ejection_percent": 50, "open_time": 30.0}
    main = {"urls": [engine.url for engine in engines], "models": [MODEL]}
    with gateway(tmp_path, health | {"max_open_time": 60.0}, {"max_retries": 0}, main=main) as process:
        for engine in engines[:3]:
            engine.fault("die_after=1;how=error")
        async with Caller(process.http) as caller:
            fewest = 4.0
            for _ in range(20):
                await caller.many(20, MODEL, stream=True)
                fewest = min(fewest, sum(available(process, engines)))
                await asyncio.sleep(0.1)
            assert [state(process, engine) for engine in engines] == [CLOSED] * 4
            assert fewest == 2.0, "two of four, and no fewer"
            found = available(process, engines)
            assert found[3] == 1.0, "not the good one"
            out = [engine for engine, there in zip(engines, found, strict=True) if not there]
            assert len(out) == 2
            before = [requests(engine) for engine in out]
            await caller.many(40, MODEL, stream=True)
            assert [requests(engine) for engine in out] == before


@pytest.mark.parametrize("kind", ["freeze_after=0", "hang"])
async def test_a_hung_endpoint_whose_health_is_fine_gets_no_more_calls(
    engines: list[Simulator], tmp_path: Path, kind: str
) -> None:
    """Long before the timeouts that would open its breaker."""
    pool = engines[:2]
    main = {"urls": [engine.url for engine in pool], "models": [MODEL], "first_token_timeout": 4.0}
    with gateway(tmp_path, {"open_time": 30.0, "max_open_time": 60.0}, {}, main=main) as process:
        pool[0].fault(kind)
        async with Caller(process.http) as caller:
            under_way = [asyncio.create_task(caller.call(MODEL, stream=True)) for _ in range(20)]
            await asyncio.to_thread(wire.wait_until, lambda: available(process, pool) == [0.0, 1.0], "the ejection")
            assert state(process, pool[0]) == CLOSED
            assert process.metric("lexora_backend_health", backend="main") == 1.0, "the probes say that it is well"
            before = requests(pool[0])
            answers = await caller.many(40, MODEL, stream=True)
            assert {(answer.status, answer.told["attempts"]) for answer in answers} == {(200, "1")}
            assert requests(pool[0]) == before
            assert statuses(await asyncio.gather(*under_way)) == [200] * 20, "theirs went on at the other one"


async def test_silent_endpoints_never_empty_a_pool(engines: list[Simulator], tmp_path: Path) -> None:
    health = {"open_time": 30.0, "max_open_time": 60.0, "max_ejection_percent": 50}
    main = {"urls": [engine.url for engine in engines], "models": [MODEL], "first_token_timeout": 4.0}
    with gateway(tmp_path, health, {"max_retries": 0}, main=main) as process:
        for engine in engines[:3]:
            engine.fault("hang")
        async with Caller(process.http) as caller:
            calls = [asyncio.create_task(caller.call(MODEL, stream=True)) for _ in range(60)]
            seen, began = [], time.monotonic()
            while time.monotonic() - began < 3.8:
                seen.append(available(process, engines))
                await asyncio.sleep(0.05)
            assert {sum(each) for each in seen} == {4.0, 2.0}, "two of four, both at once, and no fewer before the timeouts"
            assert {each[3] for each in seen} == {1.0}, "not the good one"
            assert set(statuses(await asyncio.gather(*calls))) == {200, 504}


async def test_a_recovered_endpoint_comes_back_gradually(tmp_path: Path) -> None:
    timing = ("--ttft-ms", "20", "--itl-ms", "10")
    with Simulator(*timing, model=MODEL) as back, Simulator(*timing, model=MODEL) as other:
        main = {"urls": [back.url, other.url], "models": [MODEL]}
        with gateway(tmp_path, {"slow_start": 4.0, "open_time": 0.5}, {"max_retries": 1}, main=main) as process:
            async with Caller(process.http) as caller:
                back.fault("reset")
                while state(process, back) != OPEN:
                    await caller.call(MODEL)
                back.clear()
                other.clear()
                shares = await shares_of(caller, process, back, other)
    print("share of the recovered endpoint, second by second:", [round(share, 2) for share in shares])
    assert 0 < shares[0] < 0.3, "a few at first"
    assert shares[0] < shares[1] < shares[-1]
    assert shares[-1] > 0.4, "its half in the end"


async def shares_of(caller: Caller, process: Gateway, back: Simulator, other: Simulator) -> list[float]:
    """The share of calls that go to `back`, for each second from its return on, under a load of 40 at once."""
    stop = asyncio.Event()

    async def work() -> None:
        while not stop.is_set():
            assert (await caller.call(MODEL, max_tokens=6)).status == 200

    workers = [asyncio.create_task(work()) for _ in range(40)]
    await asyncio.to_thread(wire.wait_until, lambda: available(process, [back, other]) == [1.0, 1.0], "the return")
    shares, seen = [], (await counts(back, other))
    for _ in range(6):
        await asyncio.sleep(1.0)
        found = await counts(back, other)
        went, all_went = found[0] - seen[0], sum(found) - sum(seen)
        shares.append(went / all_went)
        seen = found
    stop.set()
    await asyncio.gather(*workers)
    return shares


async def counts(*engines: Simulator) -> list[int]:
    return [await asyncio.to_thread(requests, engine) for engine in engines]


@pytest.mark.serial
async def test_a_backend_that_hangs_delays_no_call_of_another(engines: list[Simulator], tmp_path: Path) -> None:
    hung, well = engines[:2]
    backends = {
        "main": {"url": well.url, "models": [MODEL]},
        "hung": {"url": hung.url, "models": ["hung"], "model_mapping": {"hung": MODEL}, "max_concurrency": 64},
    }
    with gateway(tmp_path, {}, {}, **backends) as process:
        async with Caller(process.http) as caller:
            await caller.steadily(50, 1, MODEL)
            hung.fault("hang")
            calls: list[asyncio.Task[Answer]] = []
            ratios = []
            for _ in range(3):  # other processes on the machine can only add to the delay
                alone = p99(await caller.steadily(100, 2, MODEL))
                calls += [asyncio.create_task(caller.call("hung")) for _ in range(300 if not calls else 0)]
                await asyncio.to_thread(wire.wait_until, lambda: hung.stats()["requests"] >= 64, "its slots are full")
                beside = p99(await caller.steadily(100, 2, MODEL))
                ratios.append((alone, beside))
                if beside < alone * 1.5 + 0.005:
                    break
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
                calls = []
                hung.clear()
                hung.fault("hang")
            told = [(round(one * 1000, 1), round(other * 1000, 1)) for one, other in ratios]
            print("p99 of the other backend in ms, alone and beside one that hangs:", told)
            assert ratios[-1][1] < ratios[-1][0] * 1.5 + 0.005, told
            assert process.metric("lexora_queue_depth", backend="hung") == 300 - 64
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.to_thread(wire.wait_idle, process.http)


def p99(answers: list[Answer]) -> float:
    assert set(statuses(answers)) == {200}
    return sorted(answer.seconds for answer in answers)[len(answers) * 99 // 100]


async def test_calls_lost_in_one_death_keep_a_new_engine_out_no_longer_than_a_probe_takes(
    engines: list[Simulator], tmp_path: Path
) -> None:
    engine = engines[0]
    async with TcpProxy(engine.url.removeprefix("http://")) as proxy:  # as of a restart behind an address that always answers
        main = {"url": f"http://{proxy.address}", "models": [MODEL]}
        health = {"interval": 60.0, "open_time": 60.0, "max_open_time": 60.0}
        with gateway(tmp_path, health, {"max_retries": 0}, main=main) as process:
            async with Caller(process.http) as caller:
                lost = [
                    asyncio.create_task(caller.call(MODEL, stream=True, max_tokens=20_000, user=f"tenant-{number}"))
                    for number in range(6)
                ]
                await asyncio.to_thread(wire.wait_until, lambda: requests(engine) == 6, "six streams")
                proxy.reset()
                assert set(statuses(await asyncio.gather(*lost))) <= {200, 502}
                await asyncio.to_thread(wire.wait_until, lambda: state_of(process) == HALF_OPEN, "its trial", 30.0)
                assert (await caller.call(MODEL)).status == 200
                assert state_of(process) == CLOSED
