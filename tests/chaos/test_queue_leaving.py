"""10,000 calls in the queue, of which most leave before their turn: no slot is lost, and nobody is served who has left."""

import asyncio
import contextlib
import random
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from lexora.v1.health_pb2 import HealthRequest
from tests.support import load, wire
from tests.support.load import Client, chat
from tests.support.queueing import CHAT, MODEL, by_grpc, chats, gateway_for, grpc_stub, name_of, queued, slots_held
from tests.support.servers import Gateway, Simulator, base_config

# One half comes by HTTP, each call on a connection of its own, the other by gRPC on one channel.
WITH_DEADLINE = 500
LEAVE_WAITING = 6_000  # while no slot is free
LEAVE_RACING = 1_750  # while the queue moves
STAYING = 1_750
CALLS = WITH_DEADLINE + LEAVE_WAITING + LEAVE_RACING + STAYING
AT_ONCE = 500
SLOTS = 128
FILES = 2 * CALLS
# The crowd comes from one address; by default that has a quarter of the open files.
ROOM = CALLS + 1000
SERVER = base_config()["server"] | {"max_connections": ROOM, "max_connections_per_address": ROOM}
DEADLINE_SECONDS = (5.0, 15.0)
LEAVE_SECONDS = 2.0
# Until the gateway has seen that a client is gone: so long, and as long as it needs at the time for any call.
SEEN_SECONDS = 0.1
# As the systemd unit has it. Python's own allocator gives whole megabytes back, and a single object that lives on keeps one.
ALLOCATOR = ("PYTHONMALLOC", "malloc")
KEPT = 0.2  # of what the crowd took
STATUS = {grpc.StatusCode.DEADLINE_EXCEEDED: 504, grpc.StatusCode.RESOURCE_EXHAUSTED: 429}
LEFT = 499


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator("--itl-ms", "20", "--keep-requests", "50000", model=MODEL) as simulator:
        yield simulator


@pytest.fixture
def files() -> Iterator[None]:
    """As many open files as it takes; the gateway inherits the bound."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.skip(f"needs {FILES} open files, and the machine allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory(gateway: Gateway) -> float:
    """Resident memory of the gateway, in MiB."""
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@dataclass
class Crowd:
    """10,000 calls of four kinds. `left` is the instant at which each client left that did."""

    one: Client
    stub: Any
    dice: random.Random = field(default_factory=lambda: random.Random(7))
    full: asyncio.Event = field(default_factory=asyncio.Event)
    moving: asyncio.Event = field(default_factory=asyncio.Event)
    outcomes: dict[str, int] = field(default_factory=dict)
    left: dict[str, float] = field(default_factory=dict)

    async def call(self, number: int) -> None:
        """One call to its end."""
        name, turn = f"call-{number}", number - WITH_DEADLINE
        if turn < 0:
            self.outcomes[name] = await self._ask(number, name, self.dice.uniform(*DEADLINE_SECONDS))
        elif turn < LEAVE_WAITING:
            await self._leave(number, name, self.full)
        elif turn < LEAVE_WAITING + LEAVE_RACING:
            await self._leave(number, name, self.moving)
        else:
            self.outcomes[name] = await self._ask(number, name)

    async def settled(self, gateway: Gateway, number: int) -> None:
        """Return when, of the first so many, all that have not ended wait."""

        def settled() -> bool:
            time.sleep(0.02)  # the scrape costs the gateway more than a call
            ended = len(self.outcomes)
            return gateway.metric("lexora_queue_depth") == number - ended and ended == len(self.outcomes)

        await asyncio.to_thread(wire.wait_until, settled, f"{number} calls to wait or to have ended", 15.0)

    async def _leave(self, number: int, name: str, event: asyncio.Event) -> None:
        task = asyncio.create_task(self._ask(number, name))
        await event.wait()
        done, _ = await asyncio.wait({task}, timeout=self.dice.uniform(0, LEAVE_SECONDS))
        if done:
            self.outcomes[name] = task.result()
            return
        self.left[name] = time.monotonic()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        self.outcomes[name] = LEFT

    async def _ask(self, number: int, name: str, seconds: float | None = None) -> int:
        body = chat(MODEL, 4 + number % 8, user=f"tenant-{number % 17}")
        if number % 2:
            headers = {} if seconds is None else {"x_request_timeout": f"{seconds:.3f}"}
            return (await self.one.post(CHAT, body, name=name, **headers)).status
        try:
            return (await by_grpc(self.stub, name, body, seconds=seconds)).status
        except grpc.aio.AioRpcError as error:
            return STATUS[error.code()]


class Pulse:
    """How long the gateway needs for calls that wait for nothing while all this goes on; `worst` is in seconds."""

    def __init__(self, one: Client, stub: Any) -> None:
        self.worst = 0.0
        self._ask = (lambda: one.post("/tokenize", {"model": 0}), lambda: stub.Health(HealthRequest()))

    @contextlib.asynccontextmanager
    async def felt(self) -> AsyncIterator[None]:
        """Feel it inside."""
        tasks = [asyncio.create_task(self._feel(ask)) for ask in self._ask]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _feel(self, ask: Any) -> None:
        while True:
            began = time.monotonic()
            try:
                await ask()
            finally:  # one that takes too long to end counts too
                self.worst = max(self.worst, time.monotonic() - began)
            await asyncio.sleep(0.02)


async def check_slots(sim: Simulator, gateway: Gateway) -> None:
    """There are as many slots as there should be: so many calls are at the engine at once, and one more waits."""
    async with load.client(gateway.http) as one, slots_held(one, sim, SLOTS):
        more = asyncio.create_task(one.post(CHAT, chat(MODEL, 1), name="held-more"))
        await queued(gateway, 1)
        more.cancel()
        await queued(gateway, 0)


@pytest.mark.timeout(180)
async def test_10000_queued_calls_that_leave(
    sim: Simulator, files: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*ALLOCATOR)
    with gateway_for(sim, tmp_path, SLOTS, queue={"max_size": CALLS}, server=SERVER) as gateway:
        await check_slots(sim, gateway)
        start, began = memory(gateway), time.monotonic()
        async with load.client(gateway.http) as one, grpc_stub(gateway) as stub, asyncio.TaskGroup() as group:
            crowd, pulse = Crowd(one, stub), Pulse(one, stub)
            async with slots_held(one, sim, SLOTS):
                for first in range(0, CALLS, AT_ONCE):
                    tasks = [group.create_task(crowd.call(number)) for number in range(first, first + AT_ONCE)]
                    await crowd.settled(gateway, first + len(tasks))
                peak, filled, early = memory(gateway), time.monotonic(), len(crowd.outcomes)
                crowd.full.set()
                await asyncio.sleep(LEAVE_SECONDS)
                await crowd.settled(gateway, CALLS)
                unserved, emptied = set(crowd.outcomes), time.monotonic()
            crowd.moving.set()
            async with pulse.felt():
                await asyncio.sleep(LEAVE_SECONDS)
        done = time.monotonic()
        await asyncio.to_thread(wire.wait_idle, gateway.http)
        assert gateway.metric("lexora_queue_depth") == 0
        await check_slots(sim, gateway)
        held = memory(gateway)
        enough = start + KEPT * (peak - start)
        await asyncio.to_thread(wire.wait_until, lambda: memory(gateway) < enough, f"less than {enough:.0f} MiB", 20.0)
        end = memory(gateway)
    counts = Counter(crowd.outcomes.values())
    log = {name_of(call): call for call in chats(sim)}
    late = max(call["received"] - crowd.left[name] for name, call in log.items() if name in crowd.left)
    print(
        f"\n{CALLS} calls came in {filled - began:.1f} s, {early} of them without the patience for it; "
        f"{len(unserved)} were gone {emptied - filled:.1f} s later, none of them ever dispatched; "
        f"the rest was gone {done - emptied:.1f} s later: {dict(counts)}; "
        f"dispatched after leaving by {1000 * max(late, 0):.0f} ms at most, with a round trip of {1000 * pulse.worst:.0f} ms; "
        f"RSS {start:.0f} MiB, {peak:.0f} with all of them, {held:.0f} when they had gone, {end:.0f} given time"
    )
    assert len(crowd.outcomes) == CALLS
    assert counts.keys() <= {200, LEFT, 504, 429}
    assert counts[LEFT] > LEAVE_WAITING
    assert counts[200] >= STAYING
    assert not unserved & log.keys(), "who has left before a slot was free must never get one"
    assert all(log[name]["completed"] for name, status in crowd.outcomes.items() if status == 200)
    assert late < SEEN_SECONDS + 2 * pulse.worst
