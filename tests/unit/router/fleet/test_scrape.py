import asyncio
import time
import timeit
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from tests.support.raw_server import Do, RawServer, closed_port, reply
from tests.unit.router.engines.engine import make_backend

from lexora.v1.health_pb2 import EndpointHealth
from lexora_router.adapters.vllm import Vllm
from lexora_router.fleet.auto_limit import AutoLimit
from lexora_router.fleet.backend import Backend
from lexora_router.fleet.scrape import MAX_METRICS_BYTES, Scraper
from lexora_router.fleet.scrape import read_metrics as parse_by_names
from lexora_router.policy.concurrency import EngineLoad
from lexora_sim.engine.exposition import render
from lexora_sim.engine.scheduler import Scheduler
from lexora_sim.settings import SimSettings

EXPOSITION = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a"} 3.0
vllm:num_requests_running{engine="1",model_name="a"} 4.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a"} 2.0
vllm:num_requests_waiting{engine="1",model_name="odd } name {"} 5.0 1700000000
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 100.0
vllm:kv_cache_usage_perc{engine="0",model_name="a"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="a"} 0.5
vllm:request_success_total{finished_reason="stop"} 1e3
"""
WAITING = "vllm:num_requests_waiting"


def read_metrics(text: bytes, at: float) -> EngineLoad | None:
    assert Vllm.load_metrics is not None
    return parse_by_names(text, at, Vllm.load_metrics)


def metrics(waiting: int) -> bytes:
    return reply(b"%s %d\n" % (WAITING.encode(), waiting), content_type="text/plain")


def test_requests_are_summed_over_engines_and_the_fullest_cache_counts() -> None:
    assert read_metrics(EXPOSITION, 7.0) == EngineLoad(waiting=7.0, kv_cache_usage=0.5, at=7.0, running=7.0)


def test_the_older_name_of_the_cache_is_known() -> None:
    text = EXPOSITION.replace(b"vllm:kv_cache", b"vllm:gpu_cache")
    assert read_metrics(text, 0.0) == read_metrics(EXPOSITION, 0.0)


def test_what_no_engine_can_have_fits_the_contract_all_the_same() -> None:
    load = read_metrics(
        b"vllm:num_requests_waiting 1e300\nvllm:num_requests_waiting 1e300\nvllm:num_requests_running 1e12\n", 0.0
    )
    assert load is not None
    EndpointHealth(waiting=int(load.waiting), running=int(load.running))


async def test_the_simulator_s_exposition_is_understood() -> None:
    scheduler = Scheduler(SimSettings(models=("a", "b")))
    scheduler.metrics["a"].waiting, scheduler.metrics["b"].waiting, scheduler.metrics["b"].running = 2, 3, 4
    scheduler.kv_used = scheduler.kv_capacity // 2
    assert read_metrics(render(scheduler), 1.0) == EngineLoad(5.0, 0.5, 1.0, running=4.0)


@pytest.mark.parametrize(
    "text",
    [b"", b"\n", b"up 1\n", WAITING.encode(), b"x" + WAITING.encode() + b" 3\n", b"# TYPE " + WAITING.encode() + b" gauge\n"]
    + [f"{WAITING}{rest}\n".encode() for rest in ("", " ", " many", "{", "{a}", " NaN", " +Inf", "_by_reason 3")],
)
def test_what_does_not_tell_is_no_load(text: bytes) -> None:
    assert read_metrics(text, 0.0) is None


@pytest.mark.parametrize(("rest", "value"), [(" 3", 3.0), ("{} 3", 3.0), (" 1e2 5", 100.0), (" -1", 0.0), (" 3\r", 3.0)])
def test_numbers_are_read_as_written(rest: str, value: float) -> None:
    load = read_metrics(f"{WAITING}{rest}\n{WAITING} NaN".encode(), 0.0)
    assert load is not None
    assert load.waiting == value


@given(st.binary() | st.lists(st.sampled_from([*EXPOSITION.split(b"\n"), b"{", b"}", b" ", b"\xff"])).map(b"\n".join))
def test_no_text_is_too_odd(text: bytes) -> None:
    load = read_metrics(text, 0.0)
    assert load is None or (load.waiting >= 0 and load.kv_cache_usage >= 0)


def test_a_long_exposition_is_read_in_no_time() -> None:
    """The event loop waits for this: thousands of series of other metrics must cost little."""
    text = b'vllm:time_to_first_token_seconds_bucket{le="0.001",model_name="a"} 17.0\n' * 40_000 + EXPOSITION
    assert read_metrics(text, 0.0) == read_metrics(EXPOSITION, 0.0)
    mine = min(timeit.repeat(lambda: read_metrics(text, 0.0), number=1, repeat=5))
    lines = min(timeit.repeat(lambda: [line.split() for line in text.splitlines()], number=1, repeat=5))
    assert mine < lines, "what reads every line takes longer"


def auto_backend(url: str = "", **fields: object) -> Backend:
    return make_backend(url, concurrency="auto", scrape_interval=0.01, **fields)


def auto_of(backend: Backend, number: int = 0) -> AutoLimit:
    auto = backend.endpoints[number].auto
    assert auto is not None
    return auto


@asynccontextmanager
async def scraping(*backends: Backend, patience: float = 1.0) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(Scraper(backends, timeout=patience, clock=time.monotonic).run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Return when the condition holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the scraper tells nobody
            await asyncio.sleep(0.001)


async def told(auto: AutoLimit, waiting: float) -> EngineLoad:
    """The engine's numbers, once they say so many waiting."""
    await until(lambda: auto.engine is not None and auto.engine.waiting == waiting)
    assert auto.engine is not None
    return auto.engine


async def test_the_engine_s_own_numbers_arrive_with_the_instant_of_the_question() -> None:
    async with RawServer([metrics(3)], [metrics(5)]) as server:
        backend = auto_backend(server.url, api_key="k")
        began = time.monotonic()
        async with scraping(backend):
            first = await told(auto_of(backend), 3)
            second = await told(auto_of(backend), 5)
        assert began <= first.at < second.at <= time.monotonic()
        [request, *_] = server.requests
        assert (request.method, request.target, request.header("authorization")) == ("GET", "/metrics", "Bearer k")
        await server.wait_lost()


async def test_only_endpoints_with_a_moving_limit_are_asked() -> None:
    async with RawServer([metrics(3)]) as asked, RawServer([metrics(3)]) as spared:
        fixed, moving = make_backend(spared.url), auto_backend(asked.url)
        async with scraping(fixed, moving):
            await told(auto_of(moving), 3)
        assert spared.connections == 0


async def test_with_nothing_to_ask_it_ends() -> None:
    async with scraping(make_backend("http://e:1")) as task, asyncio.timeout(20):
        await task


BAD = {
    "no such page": reply(b"", status="404 Not Found"),
    "html": reply(b"<html></html>", content_type="text/html"),
    "too large": reply(b"x" * (MAX_METRICS_BYTES + 1)),
    "no http": b"220 mail ready\r\n\r\n",
    "closed": Do.CLOSE,
    "reset": Do.RESET,
    "silence": Do.HANG,
}


@pytest.mark.parametrize("step", BAD.values(), ids=BAD.keys())
async def test_an_engine_without_numbers_is_asked_again_and_keeps_no_other_waiting(step: bytes | Do) -> None:
    async with RawServer([step], [step], [metrics(4)]) as server, RawServer([metrics(2)]) as other:
        backend = auto_backend(urls=[server.url, other.url])
        async with scraping(backend, patience=0.1):
            await told(auto_of(backend, 1), 2)
            await told(auto_of(backend, 0), 4)


async def test_a_change_is_told_once() -> None:
    async with RawServer([metrics(1)], [BAD["no such page"]], [BAD["no such page"]], [metrics(2)]) as server:
        backend = auto_backend(server.url)
        with structlog.testing.capture_logs() as lines:
            async with scraping(backend):
                await told(auto_of(backend), 2)
                await asyncio.sleep(0)
    assert [(line["event"], line["read"], line["reason"]) for line in lines][:3] == [
        ("engine_metrics", True, ""),
        ("engine_metrics", False, "/metrics was answered 404"),
        ("engine_metrics", True, ""),
    ]


async def test_an_engine_that_is_not_there() -> None:
    backend = auto_backend(f"http://127.0.0.1:{closed_port()}")
    with structlog.testing.capture_logs() as lines:
        async with scraping(backend):
            await until(lambda: lines)
    assert auto_of(backend).engine is None
    assert lines[0]["read"] is False
