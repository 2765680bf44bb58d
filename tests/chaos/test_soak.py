"""Half load with random faults: every call comes to its end, memory stays flat, and nothing is left behind."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import grpc
import msgspec
import pytest

from lexora.v1 import call_pb2, router_pb2, router_pb2_grpc
from lexora.v1.options_pb2 import CallOptions
from lexora.v1.raw_pb2 import RawCall
from tests.support import wire
from tests.support.servers import Simulator, base_config
from tests.support.streams import Streamed, Told, asks_for, session_to, stream, truth, until
from tests.support.watched import WatchedGateway

MODEL = "qwen3-32b"
SLOTS = 12  # per engine, of three
HTTP_WORKERS, GRPC_WORKERS = 15, 3  # half of the slots
SILENCE_SECONDS = 1.0
# First tokens, retries and continuations may each wait for that silence once or twice.
LONGEST_SECONDS = 15.0
MIB = 1024 * 1024
GROWTH_BYTES = 3 * MIB
ASKS = asks_for(MODEL, (f"soak-{number}" for number in range(48)), 30)
FAULTS = {
    **dict.fromkeys(("status;code=500", "status;code=503", "status;code=429;retry_after=0", "reset"), 0.01),
    **dict.fromkeys(("hang", "hang_headers", "freeze_after=5"), 0.003),
    **{f"die_after={tokens};how={how}": 0.006 for tokens in (1, 12) for how in ("rst", "fin", "error", "abort", "eof")},
    **dict.fromkeys(("drip=30", "split;bytes=7", "slow_body;bytes=64;ms=5"), 0.02),
    **dict.fromkeys(("malformed=3", "html", "invalid_json", "empty"), 0.004),
}
MEANT = frozenset({429, 500, 502, 503, 504})  # what a fault may come to, when neither a retry nor a resumption helps


@pytest.fixture
def sims() -> Iterator[list[Simulator]]:
    with ExitStack() as stack:
        found = [stack.enter_context(Simulator("--itl-ms", "10", "--keep-requests", "1", model=MODEL)) for _ in range(3)]
        yield found


def gateway_for(sims: list[Simulator], folder: Path) -> WatchedGateway:
    backend = {"urls": [sim.url for sim in sims], "models": [MODEL], "max_concurrency": SLOTS}
    backend |= {"first_token_timeout": SILENCE_SECONDS, "idle_timeout": SILENCE_SECONDS}
    config = base_config(main=backend) | {"failover": {"resume": True}}
    return WatchedGateway(config | {"retry": {"base_delay": 0.05}}, folder)


@dataclass
class Soak:
    """Clients of all kinds, until the time is over. `ends` counts how their calls ended."""

    gateway: WatchedGateway
    told: dict[str, Told]
    until: float
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0
    dice: random.Random = field(default_factory=lambda: random.Random(7))
    numbers: Iterator[int] = field(default_factory=count)

    async def run(self) -> None:
        async with session_to(self.gateway.http) as session, grpc.aio.insecure_channel(self.gateway.grpc) as channel:
            stub: Any = router_pb2_grpc.RouterServiceStub(channel)
            async with asyncio.TaskGroup() as group:
                for _ in range(HTTP_WORKERS):
                    group.create_task(self._work(lambda name, title: self._by_http(session, name, title)))
                for _ in range(GRPC_WORKERS):
                    group.create_task(self._work(lambda name, title: self.by_grpc(stub, name, title)))

    async def _work(self, once: Any) -> None:
        while time.monotonic() < self.until:
            title = self.dice.choice(list(ASKS))
            sent = time.monotonic()
            async with asyncio.timeout(LONGEST_SECONDS):
                self.ends[await once(f"soak-call-{next(self.numbers)}", title)] += 1
            self.slowest = max(self.slowest, time.monotonic() - sent)

    async def _by_http(self, session: aiohttp.ClientSession, name: str, title: str) -> str:
        kind = self.dice.random()
        if kind < 0.1:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.dice.uniform(0, 0.3)):
                    await stream(session, Streamed(name), ASKS[title], usage=True)
            return "left"
        if kind < 0.4:
            return await self.unary(session, name, title)
        got = await stream(session, Streamed(name), ASKS[title], usage=True)
        if got.status != 200:
            return self._refused(got.status, b"".join(data for _, data in got.pieces))
        if got.done:
            return self._compare(name, got.told, title)
        if got.cut or len(got.errors) != 1 or "[DONE]" in got.events:
            self.wrong.append(f"{name} ended without a word: {got.events[-2:]}")
        return "broken in mid-stream"

    async def unary(self, session: aiohttp.ClientSession, name: str, title: str) -> str:
        ask = ASKS[title]
        async with session.post(ask.path, json=ask.body, headers={"x-request-id": name}) as response:
            body = await response.read()
            if response.status != 200:
                return self._refused(response.status, body)
        choice = msgspec.json.decode(body)["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        return self._compare(name, Told(text, choice["finish_reason"], self.told[title].usage), title)

    async def by_grpc(self, stub: Any, name: str, title: str) -> str:
        ask = ASKS[title]
        call = RawCall(path=ask.path, body=msgspec.json.encode(ask.streamed(usage=True)))
        request = router_pb2.StreamRequest(call=call_pb2.Call(options=CallOptions(request_id=name), raw=call))
        got = Streamed(name, status=200)
        try:
            async for message in stub.Stream(request, timeout=LONGEST_SECONDS):
                if message.delta.frames:
                    got.pieces.append((0.0, message.delta.frames))
        except grpc.aio.AioRpcError as error:
            return f"grpc {error.code().name}"
        return self._compare(name, got.told, title)

    def _compare(self, name: str, found: Told, title: str) -> str:
        if found != self.told[title]:
            self.wrong.append(f"{name}: {found} is not {self.told[title]}")
        return "good"

    def _refused(self, status: int, body: bytes) -> str:
        if status not in MEANT or not msgspec.json.decode(body)["error"]["message"]:
            self.wrong.append(f"{status} {body!r}")
        return str(status)


async def refuse_now_and_then(sims: list[Simulator], seconds: float) -> None:
    """Every few seconds an engine drops all its connections, and takes none for a while; at the end all take them again."""
    dice = random.Random(8)
    for _ in range(int(seconds / 4 - 0.5)):
        await asyncio.sleep(4)
        await asyncio.to_thread(dice.choice(sims).fault, "refuse;ms=400;drop=1")


async def watch(gateway: WatchedGateway, seconds: float) -> list[int]:
    """Resident memory, in bytes, several times a second."""
    seen = []
    until_then = time.monotonic() + seconds
    while time.monotonic() < until_then:
        seen.append(gateway.resident())
        await asyncio.sleep(0.2)
    return seen


def growth(seen: list[int]) -> int:
    """Bytes from the second third's middle to the last third's: the first third is the warm-up."""
    third = len(seen) // 3
    return int(median(seen[2 * third :]) - median(seen[third : 2 * third]))


async def soak(sims: list[Simulator], folder: Path, seconds: float) -> None:
    told = await truth(MODEL, ASKS)
    with gateway_for(sims, folder) as gateway:
        tasks, sockets = await at_rest(gateway, told)
        for sim in sims:
            for fault, probability in FAULTS.items():
                await asyncio.to_thread(sim.fault, fault, probability=probability)
        clients = Soak(gateway, told, time.monotonic() + seconds)
        _, seen, _ = await asyncio.gather(clients.run(), watch(gateway, seconds), refuse_now_and_then(sims, seconds))
        total = clients.ends.total()
        report = f"{total} calls in {seconds:g} s, slowest {clients.slowest:.1f} s: {dict(clients.ends.most_common())}; "
        report += f"RSS {seen[0] / MIB:.1f} MiB at first, {seen[-1] / MIB:.1f} at last, {growth(seen) / MIB:+.2f} after warm-up"
        print(report)
        assert not clients.wrong, (len(clients.wrong), clients.wrong[:5])
        assert sum(sum(sim.stats()["faults"].values()) for sim in sims) > total / 20, "there must have been faults"
        assert clients.ends["good"] + clients.ends["left"] > total * 0.9, report
        assert growth(seen) < GROWTH_BYTES, report
        await asyncio.to_thread(wire.wait_idle, gateway.http)
        await until(lambda: not any(map(busy, sims)), "idle engines")
        await nothing_left(gateway, tasks, sockets)
        assert "Traceback" not in gateway.output, gateway.output[-3000:]
        assert gateway.stop() == 0


async def at_rest(gateway: WatchedGateway, told: dict[str, Told]) -> tuple[Counter[str], int]:
    """Tasks and sockets of a gateway that has nothing to do, and has answered before, each way."""
    clients = Soak(gateway, told, time.monotonic())
    async with session_to(gateway.http) as session, grpc.aio.insecure_channel(gateway.grpc) as channel:
        title = next(iter(ASKS))
        assert await clients.unary(session, "first", title) == "good"
        assert await clients.by_grpc(router_pb2_grpc.RouterServiceStub(channel), "second", title) == "good"
    await asyncio.to_thread(wire.wait_idle, gateway.http)
    return await asyncio.to_thread(gateway.tasks), gateway.sockets()


def busy(sim: Simulator) -> int:
    stats = sim.stats()
    return int(stats["running"] + stats["waiting"])


async def nothing_left(gateway: WatchedGateway, tasks: Counter[str], sockets: int) -> None:
    """Kept connections may idle for some seconds; then there is what there was at the beginning."""
    await until(lambda: gateway.sockets() <= sockets, f"{sockets} sockets, not {gateway.sockets()}", 15.0)
    left = await asyncio.to_thread(gateway.tasks) - tasks
    del left["AioServer._request_registered_call"]  # gRPC waits for the next call of each rpc, now and then for one less
    assert not left, f"tasks left: {left}"


@pytest.mark.timeout(120)
async def test_twelve_seconds(sims: list[Simulator], tmp_path: Path) -> None:
    await soak(sims, tmp_path, 12.0)


@pytest.mark.timeout(300)
@pytest.mark.soak
async def test_a_minute(sims: list[Simulator], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "soak" not in request.config.getoption("-m"):
        pytest.skip("make soak")
    await soak(sims, tmp_path, 60.0)
