"""An engine that is killed or freezes under many live streams: who notices, and what they get."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support import wire
from tests.support.servers import Gateway, Simulator, base_config
from tests.support.streams import Ask, Crowd, Streamed, Told, asks_for, call_lines, crowd, percentile, session_to, truth, until

MODEL = "qwen3-32b"
STREAMS = 200
FEWER = 60  # where times are compared
ROUNDS = 3
TOKENS = 100
BEAT_MS = 40
IDLE_SECONDS = 1.0
QUIET_SECONDS = 0.8  # in which the streams' own beat is measured
# By so much a busy machine may be late.
SLACK_SECONDS = 0.75
# ... and by so much the 99th percentile of the gaps between tokens may move for streams that nothing happens to.
STEADY_SECONDS = 0.02
WORKERS = 8  # for each of two backends
PAUSE_SECONDS = 0.03  # between a worker's calls
LATE_SECONDS = 0.25  # a call that waits for the dead engine waits for seconds; a busy machine moves the percentile less
NAMES = tuple(f"stream-{number}" for number in range(STREAMS))
ASKS = asks_for(MODEL, NAMES, TOKENS)


@pytest.fixture
def sims() -> Iterator[list[Simulator]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Simulator("--itl-ms", str(BEAT_MS), model=MODEL)) for _ in range(3)]


@pytest.fixture(scope="module")
def told() -> dict[str, Told]:
    return asyncio.run(truth(MODEL, ASKS))


def gateway_for(sims: list[Simulator], folder: Path, *, resume: bool) -> Gateway:
    backend: dict[str, Any] = {"urls": [sim.url for sim in sims], "models": [MODEL], "max_concurrency": STREAMS}
    backend["idle_timeout"] = IDLE_SECONDS
    config = base_config(main=backend) | {"failover": {"resume": resume}, "logging": {"format": "json"}}
    return Gateway(config, folder)


def asks_usage(name: str) -> bool:
    """Half of the clients want to see their usage."""
    return name.endswith(("0", "2", "4", "6", "8"))


def at_work(sim: Simulator) -> set[str]:
    """Request ids of the streams that the engine has now."""
    return {call["headers"]["x-request-id"] for call in sim.requests(1000) if call["path"] in {a.path for a in ASKS.values()}}


async def victims_of(running: Crowd, sims: list[Simulator]) -> set[str]:
    """The ids at the first engine, when all streams are in their midst."""
    await running.begun(pieces=15)
    assert not any(each.over for each in running.streams.values()), "every stream must be live"
    parts = [await asyncio.to_thread(at_work, sim) for sim in sims]
    assert sum(map(len, parts)) == len(running.streams)
    assert set().union(*parts) == running.streams.keys()
    return parts[0]


def check_exact(streams: dict[str, Streamed], told: dict[str, Told]) -> None:
    """Each stream is whole, says what the lone engine says, and counts as much."""
    for name, stream in streams.items():
        assert stream.status == 200
        assert stream.done, (name, stream.errors, stream.events[-2:])
        found, right = stream.told, told[name]
        assert (found.text, found.reason) == (right.text, right.reason), name
        assert found.usage == (right.usage if asks_usage(name) else None), name
        assert len({chunk["id"] for chunk in stream.chunks}) == 1, name


def check_counts(gateway: Gateway, told: dict[str, Told], resumed: set[str]) -> None:
    """Log and metrics count each token of each stream once, and say which of them went on elsewhere."""
    lines = call_lines(gateway)
    for name, right in told.items():
        assert right.usage is not None
        line = lines[name]
        assert (line["tokens_in"], line["tokens_out"]) == (right.usage["prompt_tokens"], right.usage["completion_tokens"]), name
        assert line["status"] == 200
    assert {name for name in lines if "resumed" in lines[name]} == resumed
    assert {name for name in lines if lines[name]["attempts"] > 1} == resumed
    usages = [right.usage for right in told.values() if right.usage is not None]
    assert gateway.metric("lexora_tokens_input_total") == sum(usage["prompt_tokens"] for usage in usages)
    assert gateway.metric("lexora_tokens_output_total") == sum(usage["completion_tokens"] for usage in usages)
    assert gateway.metric("lexora_streams_resumed_total") == len(resumed)


async def lines_of(gateway: Gateway, count: int) -> None:
    await until(lambda: len(call_lines(gateway)) == count, f"{count} lines in the log")


@pytest.mark.serial
async def test_a_killed_engine_under_200_streams_fails_none_of_them(
    sims: list[Simulator], told: dict[str, Told], tmp_path: Path
) -> None:
    with gateway_for(sims, tmp_path, resume=True) as gateway:
        async with crowd(gateway.http, ASKS, asks_usage) as running:
            victims = await victims_of(running, sims)
            os.kill(sims[0].pid, signal.SIGKILL)
            killed = time.monotonic()
            streams = await running.over()
        check_exact(streams, told)
        await lines_of(gateway, STREAMS)
        check_counts(gateway, told, victims)
        await asyncio.to_thread(wire.wait_idle, gateway.http)
        after = [max(streams[name].gaps(killed)) for name in victims]
        print(f"{len(victims)} of {STREAMS} resumed; gap p50 {percentile(after, 50):.3f} s, longest {max(after):.3f} s")
        made = sum(sim.stats()["tokens_out"] for sim in sims[1:])
        whole = sum(TOKENS for name in NAMES if name not in victims)
        # What the others made for the victims is less than a whole answer each: they went on, and did not begin again.
        assert made - whole < len(victims) * TOKENS * 0.9


@pytest.mark.serial
async def test_without_resume_only_the_killed_engines_own_streams_end(
    sims: list[Simulator], told: dict[str, Told], tmp_path: Path
) -> None:
    with gateway_for(sims, tmp_path, resume=False) as gateway:
        async with crowd(gateway.http, ASKS, asks_usage) as running:
            victims = await victims_of(running, sims)
            os.kill(sims[0].pid, signal.SIGKILL)
            killed = time.monotonic()
            streams = await running.over()
        check_exact({name: stream for name, stream in streams.items() if name not in victims}, told)
        for name in victims:
            check_broken(streams[name], told[name])
        last = max(streams[name].pieces[-1][0] for name in victims) - killed
        print(f"{len(victims)} of {STREAMS} ended with an error, the last {last:.3f} s after the kill")
        await lines_of(gateway, STREAMS)
        lines = call_lines(gateway)
        assert {name for name in lines if "error" in lines[name]} == victims
        assert {lines[name]["attempts"] for name in lines} == {1}
        assert gateway.metric("lexora_streams_resumed_total") == 0
        await asyncio.to_thread(wire.wait_idle, gateway.http)


def check_broken(stream: Streamed, right: Told) -> None:
    """A beginning of the answer, then one error event, which is the last thing, and the proper end of the body."""
    assert stream.status == 200
    assert not stream.cut
    assert len(stream.errors) == 1
    assert "error" in stream.events[-1]
    assert "[DONE]" not in stream.events
    assert stream.errors[0]["message"]
    assert right.text.startswith(stream.told.text)
    assert stream.told.text
    assert stream.told.reason is None


async def freeze(sims: list[Simulator], told: dict[str, Told], folder: Path) -> tuple[list[float], float, float]:
    """Freeze an engine. How long each of its streams was silent, and the others' p99 gap before and after; seconds."""
    # With ids each token is an event, also one that is only the beginning of a character: a steady beat.
    asks = {name: Ask(ASKS[name].path, ASKS[name].body | {"return_token_ids": True}) for name in NAMES[:FEWER]}
    with gateway_for(sims, folder, resume=True) as gateway:
        async with crowd(gateway.http, asks, asks_usage) as running:
            victims = await victims_of(running, sims)
            began = time.monotonic()
            await asyncio.sleep(QUIET_SECONDS)
            frozen = time.monotonic()
            sims[0].signal(signal.SIGSTOP)
            streams = await running.over()
        check_exact(streams, told)
        await lines_of(gateway, FEWER)
        check_counts(gateway, {name: told[name] for name in asks}, victims)
        await comes_back(gateway, sims[0], len(victims))
    others = [streams[name] for name in asks if name not in victims]
    before = percentile([gap for each in others for gap in each.gaps(began, frozen)], 99)
    after = percentile([gap for each in others for gap in each.gaps(frozen)], 99)
    return [max(streams[name].gaps(frozen)) for name in victims], before, after


async def comes_back(gateway: Gateway, sim: Simulator, left: int) -> None:
    """The engine that was frozen sees that its clients left, and nothing is left anywhere."""
    sim.signal(signal.SIGCONT)
    await asyncio.to_thread(wire.wait_until, lambda: sim.stats()["running"] == 0, "the frozen engine to be idle")
    assert sim.stats()["aborts"] == left
    await asyncio.to_thread(wire.wait_idle, gateway.http)


@pytest.mark.serial
async def test_streams_of_a_frozen_engine_go_on_within_the_idle_timeout_and_the_others_do_not_notice(
    sims: list[Simulator], told: dict[str, Told], tmp_path: Path
) -> None:
    # Only the times get another chance, because other processes of the machine can add to them.
    rounds: list[str] = []
    while len(rounds) < ROUNDS:
        for sim in sims:
            sim.clear()
        silent, before, after = await freeze(sims, told, tmp_path)
        rounds.append(
            f"{len(silent)} of {FEWER} silent for {percentile(silent, 50):.3f} s, at most {max(silent):.3f} s; "
            f"gaps of the others, p99: {1000 * before:.1f} ms before, {1000 * after:.1f} ms after"
        )
        if max(silent) < IDLE_SECONDS + SLACK_SECONDS and after < before + STEADY_SECONDS:
            print(rounds)
            return
    raise AssertionError(rounds)


async def test_a_killed_engine_touches_no_call_to_another_backend(tmp_path: Path) -> None:
    asks = {"doomed": ASKS[NAMES[0]], "spared": ASKS[NAMES[1]]}
    named = {name: Ask(ask.path, ask.body | {"model": name, "max_tokens": 5}) for name, ask in asks.items()}
    with Simulator("--itl-ms", "5", model="doomed") as doomed, Simulator("--itl-ms", "5", model="spared") as spared:
        config = base_config(doomed={"url": doomed.url, "models": ["doomed"]}, spared={"url": spared.url, "models": ["spared"]})
        with Gateway(config | {"retry": {"base_delay": 0.05}}, tmp_path) as gateway:
            calls = {name: [Timed(name, ask) for _ in range(WORKERS)] for name, ask in named.items()}
            async with session_to(gateway.http) as session, asyncio.TaskGroup() as group:
                workers = [each for some in calls.values() for each in some]
                for worker in workers:
                    group.create_task(worker.work(session))
                await asyncio.sleep(QUIET_SECONDS)
                killed = time.monotonic()
                os.kill(doomed.pid, signal.SIGKILL)
                await asyncio.sleep(2 * QUIET_SECONDS)
                for worker in workers:
                    worker.stopped = True
            await asyncio.to_thread(wire.wait_idle, gateway.http)
    ends = {name: [end for each in some for end in each.ends] for name, some in calls.items()}
    assert {status for _, _, status in ends["spared"]} == {200}
    assert {status for at, _, status in ends["doomed"] if at < killed} == {200}
    assert {status for at, _, status in ends["doomed"] if at > killed + SLACK_SECONDS} <= {502, 503}
    before = percentile([took for at, took, _ in ends["spared"] if at < killed], 99)
    after = percentile([took for at, took, _ in ends["spared"] if at > killed], 99)
    print(f"{len(ends['spared'])} calls of the other backend, p99 {1000 * before:.1f} ms before, {1000 * after:.1f} ms after")
    assert after < before + LATE_SECONDS


@dataclass
class Timed:
    """A client that asks again and again. `ends`: when each call ended, how long it took, its status; seconds."""

    name: str
    ask: Ask
    stopped: bool = False
    ends: list[tuple[float, float, int]] = field(default_factory=list)

    async def work(self, session: aiohttp.ClientSession) -> None:
        while not self.stopped:
            sent = time.monotonic()
            async with session.post(self.ask.path, json=self.ask.body) as response:
                await response.read()
            now = time.monotonic()
            self.ends.append((now, now - sent, response.status))
            await asyncio.sleep(PAUSE_SECONDS)
