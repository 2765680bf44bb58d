"""Engines that are restarted in turn under load, politely and not: no call fails."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support import wire
from tests.support.servers import Gateway, Simulator, base_config
from tests.support.streams import (
    Ask,
    Streamed,
    Told,
    ask_plainly,
    asks_for,
    call_lines,
    crowd,
    session_to,
    stream,
    truth,
    until,
)

MODEL = "qwen3-32b"
BEAT_MS = 20
RESTARTS = 4
SETTLE_SECONDS = 1.0  # as an orchestrator waits from one engine to the next
UNARY_WORKERS = 12
STREAM_WORKERS = 24
ASKS = asks_for(MODEL, (f"story-{number}" for number in range(8)), 8) | asks_for(
    MODEL, (f"saga-{number}" for number in range(24)), 60
)


@pytest.fixture(scope="module")
def told() -> dict[str, Told]:
    return asyncio.run(truth(MODEL, ASKS))


class Fleet:
    """Three engines, each at an address that it keeps over its restarts."""

    def __init__(self) -> None:
        self.sims = [self._start() for _ in range(3)]
        self.urls = [sim.url for sim in self.sims]

    async def restart(self, number: int, how: signal.Signals) -> None:
        """End the engine, and start it again at once; returns when it serves."""
        old = self.sims[number]
        os.kill(old.pid, how)
        await asyncio.to_thread(old.stop)
        self.sims[number] = await asyncio.to_thread(self._start, int(old.url.rpartition(":")[2]))

    def stop(self) -> None:
        for sim in self.sims:
            sim.stop()

    @staticmethod
    def _start(port: int = 0) -> Simulator:
        return Simulator("--itl-ms", str(BEAT_MS), model=MODEL, port=port)


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    found = Fleet()
    yield found
    found.stop()


class Load:
    """Clients that ask again as soon as they have their answer, each of which must be exact; `answers` counts them by kind."""

    def __init__(self, session: aiohttp.ClientSession, told: dict[str, Told]) -> None:
        self._session = session
        self._told = told
        self._numbers = count()
        self.stopped = False
        self.answers = {"unary": 0, "stream": 0}
        self.failed: list[str] = []
        self.slowest = 0.0

    async def work(self, kind: str) -> None:
        """Be one client, until stopped."""
        prefix = {"unary": "story", "stream": "saga"}[kind]
        asks = [(title, ask) for title, ask in ASKS.items() if title.startswith(prefix)]
        while not self.stopped:
            number = next(self._numbers)
            title, ask = asks[number % len(asks)]
            sent = time.monotonic()
            await (self._unary if kind == "unary" else self._stream)(f"{kind}-{number}", title, ask)
            self.answers[kind] += 1
            self.slowest = max(self.slowest, time.monotonic() - sent)

    async def _unary(self, name: str, title: str, ask: Ask) -> None:
        try:
            self._compare(name, await ask_plainly(self._session, ask, name), title)
        except AssertionError as error:
            self.failed.append(f"{name}: {error}"[:500])

    async def _stream(self, name: str, title: str, ask: Ask) -> None:
        got = await stream(self._session, Streamed(name), ask, usage=True)
        if got.status == 200 and got.done:
            self._compare(name, got.told, title)
        else:
            self.failed.append(f"{name}: {got.status} {got.events[-1:]}")

    def _compare(self, name: str, found: Told, title: str) -> None:
        if found != self._told[title]:
            self.failed.append(f"{name}: {found} is not {self._told[title]}")


@asynccontextmanager
async def load(base: str, told: dict[str, Told]) -> AsyncIterator[Load]:
    """Load for as long as the block takes; then every call comes to its end."""
    async with session_to(base) as session, asyncio.TaskGroup() as group:
        found = Load(session, told)
        for kind, workers in (("unary", UNARY_WORKERS), ("stream", STREAM_WORKERS)):
            for _ in range(workers):
                group.create_task(found.work(kind))
        try:
            yield found
        finally:
            found.stopped = True


def gateway_for(fleet: Fleet, folder: Path) -> Gateway:
    backend: dict[str, Any] = {"urls": fleet.urls, "models": [MODEL]}
    config = base_config(main=backend) | {"failover": {"resume": True}, "logging": {"format": "json"}}
    del config["health"]  # probes as seldom as by default: each engine is back long before its turn
    return Gateway(config, folder)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
async def test_four_restarts_of_engines_in_turn_fail_no_call(
    fleet: Fleet, told: dict[str, Told], tmp_path: Path, how: signal.Signals
) -> None:
    with gateway_for(fleet, tmp_path) as gateway:
        async with load(gateway.http, told) as running:
            await until(lambda: running.answers["stream"] >= STREAM_WORKERS, "the load to have begun")
            for turn in range(RESTARTS):
                await fleet.restart(turn % 3, how)
                await asyncio.sleep(SETTLE_SECONDS)
        assert not running.failed, (len(running.failed), running.answers, running.failed[:5])
        total = sum(running.answers.values())
        await until(lambda: len(call_lines(gateway)) == total, f"{total} lines in the log")
        lines = call_lines(gateway).values()
        resumed = sum("resumed" in line for line in lines)
        retried = sum(line["retries"] for line in lines)
        print(f"{how.name}: {running.answers}, {resumed} resumed, {retried} retries, slowest {running.slowest:.2f} s")
        assert resumed >= RESTARTS
        assert {line["status"] for line in lines} == {200}
        await asyncio.to_thread(wire.wait_idle, gateway.http)


@pytest.mark.serial
async def test_streams_that_outlast_a_restart_of_every_engine_are_whole(fleet: Fleet, tmp_path: Path) -> None:
    asks = asks_for(MODEL, (f"epic-{number}" for number in range(40)), 500)
    right = await truth(MODEL, asks)
    with gateway_for(fleet, tmp_path) as gateway:
        async with crowd(gateway.http, asks) as running:
            await running.begun(pieces=10)
            for number in range(3):
                await fleet.restart(number, signal.SIGTERM)
                await asyncio.sleep(SETTLE_SECONDS)
            assert not any(each.over for each in running.streams.values()), "every stream must outlast them all"
            streams = await running.over()
        bad = {name: each.errors for name, each in streams.items() if not each.done}
        assert not bad
        assert {name: each.told for name, each in streams.items()} == right
        await until(lambda: len(call_lines(gateway)) == len(asks), "the lines in the log")
        attempts = sorted(line["attempts"] for line in call_lines(gateway).values())
        print(f"attempts of {len(attempts)} streams: {attempts}")
        assert attempts[-1] > 2
        await asyncio.to_thread(wire.wait_idle, gateway.http)
