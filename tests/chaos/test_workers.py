"""`lexora serve --workers`: one gateway of several processes, seen from outside; each of them killed, replaced and ended."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import httpx
import pytest
import yaml

from lexora.v1.call_pb2 import Call
from lexora.v1.chat_pb2 import ROLE_USER, ChatMessage, ChatRequest
from lexora.v1.router_pb2 import GenerateRequest
from lexora.v1.router_pb2_grpc import RouterServiceStub
from lexora.v1.sampling_pb2 import SamplingParams
from tests.chaos.conftest import MODEL
from tests.support import wire
from tests.support.process import Process, python
from tests.support.servers import Gateway, Simulator, base_config, metric
from tests.support.streams import CHAT, asks_for, crowd, session_to, until
from tests.support.workers import children, command_of, wait_gone, workers_of

STREAMS = 200
RESTART_SECONDS = 2.0  # on an idle machine; tests allow for a busy one
TIGHT, SLOTS = "qwen3-8b", 6
COUNTED = ("lexora_requests_total", "lexora_request_duration_seconds_count", "lexora_tokens_output_total")


def config(engine: Simulator, tight: Simulator | None = None, **server: Any) -> dict[str, Any]:
    backends: dict[str, Any] = {"main": {"url": engine.url, "models": [MODEL], "max_concurrency": 500}}
    if tight is not None:
        backends["tight"] = {"url": tight.url, "models": [TIGHT], "max_concurrency": SLOTS}
    found = base_config(**backends)
    found["server"] |= {"workers": 2, "drain_timeout": 20.0, **server}
    found["logging"] = {"format": "json"}
    return found


@pytest.fixture(scope="module")
def beat() -> float:
    return 20.0


@pytest.fixture(scope="module")
def tight() -> Iterator[Simulator]:
    with Simulator("--itl-ms", "5", model=TIGHT) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def gateway(sim: Simulator, tight: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One for all tests here, in their order; the last one ends it."""
    with Gateway(config(sim, tight), tmp_path_factory.mktemp("workers")) as process:
        yield process


def ask(tokens: int = 3) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": tokens, "ignore_eos": True, "messages": [{"role": "user", "content": "go on"}]}


def chat(tokens: int = 3) -> GenerateRequest:
    message = ChatMessage(role=ROLE_USER, text="go on")
    sampling = SamplingParams(max_tokens=tokens)
    return GenerateRequest(call=Call(chat=ChatRequest(model=MODEL, messages=[message], sampling=sampling)))


def events(gateway: Gateway, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in list(gateway.lines) if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


class Load:
    """Clients over HTTP, each on a kept connection, and over gRPC, each on a channel of its own now and then."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.stopped = False
        self.done = {"http": 0, "grpc": 0}
        self.failed: list[str] = []

    async def http(self, session: aiohttp.ClientSession) -> None:
        while not self.stopped:
            try:
                async with session.post(CHAT, json=ask()) as response:
                    text = await response.text()
                    if response.status != 200:
                        self.failed.append(f"http {response.status} {text[:200]}")
            except (aiohttp.ClientError, OSError) as error:
                self.failed.append(f"http {error!r}")
            self.done["http"] += 1

    async def grpc(self) -> None:
        for number in count():
            async with grpc.aio.insecure_channel(self._gateway.grpc, options=[("grpc.channel_id", number)]) as channel:
                for _ in range(20):
                    if self.stopped:
                        return
                    try:
                        await RouterServiceStub(channel).Generate(chat(), timeout=30)
                    except grpc.aio.AioRpcError as error:
                        self.failed.append(f"grpc {error.code()} {error.details()}")
                    self.done["grpc"] += 1


@asynccontextmanager
async def load(gateway: Gateway, clients: int = 8) -> AsyncIterator[Load]:
    async with session_to(gateway.http) as session, asyncio.TaskGroup() as group:
        found = Load(gateway)
        for _ in range(clients):
            group.create_task(found.http(session))
        for _ in range(clients // 2):
            group.create_task(found.grpc())
        try:
            yield found
        finally:
            found.stopped = True


async def counted(gateway: Gateway) -> dict[str, float]:
    return {name: await asyncio.to_thread(gateway.metric, name) for name in COUNTED}


def statuses_on_new_connections(gateway: Gateway, calls: int) -> list[int]:
    return [httpx.post(gateway.http + CHAT, json=ask(), verify=False, timeout=30).status_code for _ in range(calls)]


def test_one_view_of_two_workers(gateway: Gateway, tmp_path: Path) -> None:
    assert statuses_on_new_connections(gateway, 24) == [200] * 24
    served = {line["worker"] for line in _called(gateway, 24)}
    assert served == {1, 2}, "connections go to both workers"
    for _ in range(6):  # whichever of them is asked
        assert gateway.metric("lexora_requests_total") == 24
        assert gateway.metric("lexora_worker_up") == 2
        assert gateway.metric("lexora_build_info") == 1
        stats = httpx.get(f"{gateway.http}/stats", verify=False).json()
        assert (stats["total_requests"], stats["total_tokens_output"]) == (24, 72)
        assert stats["since_start"]["total"]["count"] == 24
        assert [worker["answered"] for worker in stats["workers"]] == [True, True]
        recent = httpx.get(f"{gateway.http}/stats/recent?limit=200", verify=False).json()["calls"]
        finished = [call["finished_unix_ms"] for call in recent]
        assert len({call["request_id"] for call in recent}) == 24
        assert finished == sorted(finished, reverse=True)
    process = httpx.get(f"{gateway.http}/metrics", verify=False).text
    assert metric(process, "process_resident_memory_bytes", worker="1") > 0
    assert metric(process, "process_resident_memory_bytes", worker="2") > 0
    with Process(python("lexora_cli", "status", "--router", gateway.grpc)) as status:
        assert status.wait() == 0
    assert "2 workers" in status.output
    assert "24 finished" in status.output
    second = tmp_path / "second.yaml"
    port = int(gateway.http.rpartition(":")[2])
    second.write_text(yaml.safe_dump({"server": {"host": "127.0.0.1", "port": port, "grpc_port": 0}}))
    for workers in ("1", "2"):
        with Process(python("lexora_cli", "serve", "--config", str(second), "--workers", workers)) as other:
            assert other.wait() == 1
        assert other.output.count("cannot listen on") == 1, other.output
        assert "Address already in use; change server.port (--port)" in other.output


def test_a_silent_worker_is_left_out_and_said(gateway: Gateway) -> None:
    silent, *_ = workers_of(gateway)
    assert statuses_on_new_connections(gateway, 4) == [200] * 4
    os.kill(silent, signal.SIGSTOP)
    try:
        with httpx.Client(verify=False, timeout=10) as client:
            stats = _from_a_living_worker(client, f"{gateway.http}/stats")
    finally:
        os.kill(silent, signal.SIGCONT)
    assert {worker["pid"]: worker["answered"] for worker in stats["workers"]}[silent] is False
    assert gateway.metric("lexora_worker_up") == 2


async def test_an_engine_never_has_more_than_its_slots(gateway: Gateway, tight: Simulator) -> None:
    tight.clear()
    asks = asks_for(TIGHT, (f"slot-{number}" for number in range(60)), 20)
    async with crowd(gateway.http, asks) as running:
        streams = await running.over()
    assert all(each.done for each in streams.values()), [each.events[-1] for each in streams.values() if not each.done]
    found = tight.stats()
    print(found)
    assert found["max_running"] == SLOTS


def _from_a_living_worker(client: httpx.Client, url: str) -> Any:
    """Connections to one that was stopped wait: the next one may find another."""
    for _ in range(20):
        try:
            with httpx.Client(verify=False, timeout=2.5) as other:
                return other.get(url).json()
        except httpx.TimeoutException:
            continue
    raise AssertionError("no worker answers")


def test_a_reload_by_rpc_is_one_of_all_workers(gateway: Gateway) -> None:
    settings = yaml.safe_load(gateway.config_file.read_text()) | {"retry": {"max_retries": 4}}
    gateway.config_file.write_text(yaml.safe_dump(settings))
    with Process(python("lexora_cli", "reload", "--router", gateway.grpc)) as reload:
        assert reload.wait() == 0, reload.output
    assert "retry.max_retries" in reload.output

    def workers() -> set[int]:
        lines = [line for name in ("applied", "unchanged") for line in events(gateway, f"configuration_{name}")]
        return {line["worker"] for line in lines if line["trigger"] == "rpc"}

    wire.wait_until(lambda: workers() == {1, 2}, "the lines of both workers")


def test_a_coordinator_that_is_killed_is_started_again(gateway: Gateway) -> None:
    (coordinator,) = [pid for pid in children(gateway.pid) if b"lexora_router.state" in command_of(pid)]
    workers = workers_of(gateway)
    os.kill(coordinator, signal.SIGKILL)
    for _ in range(10):
        assert statuses_on_new_connections(gateway, 2) == [200] * 2
    wire.wait_until(lambda: events(gateway, "coordinator_died"), "the supervisor's line")
    wire.wait_until(lambda: gateway.metric("lexora_state_shared") == 1, "limits that are shared again")
    assert gateway.metric("lexora_state_replicas") == 2
    assert workers_of(gateway) == workers


@pytest.mark.serial
async def test_a_worker_killed_under_200_streams(gateway: Gateway) -> None:
    asks = asks_for(MODEL, (f"saga-{number}" for number in range(STREAMS)), 200)
    calls = (await counted(gateway))["lexora_requests_total"]
    async with crowd(gateway.http, asks) as running:
        await running.begun(pieces=5)
        assert statuses_on_new_connections(gateway, 10) == [200] * 10
        known = await counted(gateway)  # what was seen is not unseen when its worker is gone
        first, _ = workers_of(gateway)
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(events(gateway, "worker_serves")) == 3, "a new worker")
        took = events(gateway, "worker_serves")[-1]["after"]
        assert statuses_on_new_connections(gateway, 8) == [200] * 8
        streams = await running.over()
    whole = [each for each in streams.values() if each.done]
    broken = [each for each in streams.values() if not each.done]
    print(f"{len(whole)} whole, {len(broken)} broken, the new worker served {took} s after its start")
    assert all(each.cut for each in broken), "what breaks is seen to"
    assert 0 < len(broken) < STREAMS
    (died,) = events(gateway, "worker_died")
    assert (died["by"], died["pid"], died["again_in"]) == ("SIGKILL", first, 0.0)
    now = await counted(gateway)
    assert all(now[name] >= known[name] for name in COUNTED), (known, now)
    assert now["lexora_requests_total"] == calls + 10 + 8 + len(whole)


@pytest.mark.serial
async def test_a_rolling_restart_under_load_fails_no_call(gateway: Gateway) -> None:
    old, calls = workers_of(gateway), (await counted(gateway))["lexora_requests_total"]
    async with load(gateway) as running:
        await until(lambda: min(running.done.values()) > 30, "the load to have begun")
        before = await counted(gateway)
        settings = yaml.safe_load(gateway.config_file.read_text())
        settings["server"]["max_body_bytes"] = 100_000
        gateway.config_file.write_text(yaml.safe_dump(settings))
        gateway.signal(signal.SIGHUP)
        await until(lambda: events(gateway, "rolled"), "the end of it", 60)
        after = await counted(gateway)
        done = sum(running.done.values())
        await until(lambda: sum(running.done.values()) > done + 50, "more calls")
    print(f"{running.done} in all, rolled in {events(gateway, 'rolled')[0]['seconds']} s")
    assert not running.failed, (len(running.failed), running.done, running.failed[:5])
    assert not set(old) & set(workers_of(gateway))
    await asyncio.to_thread(wait_gone, old)
    assert all(after[name] >= before[name] for name in COUNTED), (before, after)
    total = calls + sum(running.done.values())
    assert (await counted(gateway))["lexora_requests_total"] == total
    async with session_to(gateway.http) as session:
        async with session.get("/stats") as answer:
            assert (await answer.json())["total_requests"] == total
        async with session.post(CHAT, json=ask() | {"user": "x" * 150_000}) as large:
            assert large.status == 413, "the new setting is in force"
    # What a reload is enough for restarts nothing.
    settings["retry"] = {"max_retries": 1}
    gateway.config_file.write_text(yaml.safe_dump(settings))
    gateway.signal(signal.SIGHUP)
    await until(
        lambda: {line["worker"] for line in events(gateway, "configuration_applied")[-2:]} == {1, 2}, "a reload of both"
    )
    assert len(events(gateway, "rolling")) == 1
    # A worker that cannot start ends it: those that serve stay.
    serving = workers_of(gateway)
    settings["audit"] = {"file": str(gateway.config_file.parent / "missing" / "audit.log")}
    gateway.config_file.write_text(yaml.safe_dump(settings))
    gateway.signal(signal.SIGHUP)
    await until(lambda: events(gateway, "rolling_ended"), "the failed start")
    assert workers_of(gateway) == serving
    assert statuses_on_new_connections(gateway, 4) == [200] * 4


async def test_sigterm_lets_the_streams_of_all_workers_end(gateway: Gateway) -> None:
    asks = asks_for(MODEL, (f"end-{number}" for number in range(20)), 60)
    processes = [gateway.pid, *children(gateway.pid)]
    async with crowd(gateway.http, asks) as running:
        await running.begun()
        gateway.signal(signal.SIGTERM)
        streams = await running.over()
    assert all(each.done for each in streams.values())
    assert await asyncio.to_thread(gateway.wait) == 0
    await asyncio.to_thread(wait_gone, processes)


async def test_without_their_supervisor_workers_end_when_their_streams_have(sim: Simulator, tmp_path: Path) -> None:
    asks = asks_for(MODEL, (f"lost-{number}" for number in range(20)), 60)
    with Gateway(config(sim), tmp_path) as gateway:
        processes = children(gateway.pid)
        async with crowd(gateway.http, asks) as running:
            await running.begun()
            gateway.signal(signal.SIGKILL)
            streams = await running.over()
    assert all(each.done for each in streams.values())
    await asyncio.to_thread(wait_gone, processes)


def test_when_no_worker_can_be_started_the_supervisor_gives_up(sim: Simulator, tmp_path: Path) -> None:
    with Gateway(config(sim), tmp_path) as gateway:
        gateway.config_file.unlink()
        for worker in workers_of(gateway):
            os.kill(worker, signal.SIGKILL)
        assert gateway.wait(60) == 1
        waits = [event["again_in"] for event in events(gateway, "worker_died")]
        assert events(gateway, "given_up")
        assert waits[:2] == [0.0, 0.0]
        assert max(waits) >= 0.5, waits


def test_what_keeps_a_worker_from_starting_is_said_once(sim: Simulator, tmp_path: Path) -> None:
    settings = config(sim) | {"audit": {"file": str(tmp_path / "missing" / "audit.log")}}
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump(settings))
    with Process(python("lexora_cli", "serve", "--config", str(file))) as process:
        assert process.wait(30) == 1
    assert process.output.count("lexora: ") == 1, process.output
    assert "missing/audit.log" in process.output


def _called(gateway: Gateway, calls: int) -> list[dict[str, Any]]:
    for _ in range(400):
        lines = events(gateway, "call")
        if len(lines) == calls:
            return lines
        signal.sigtimedwait((), 0.02)
    raise AssertionError(f"{len(lines)} lines of calls, not {calls}")
