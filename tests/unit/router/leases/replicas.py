"""Replicas of one gateway in one process, on a clock that jumps: pools that lease their slots from a store in memory."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.support.clock import now
from tests.unit.router.support import FakeEndpoint, make_call, make_pool

from lexora_router.call import Outcome
from lexora_router.leases.slots import SlotLeases
from lexora_router.state.link import StateLink
from lexora_router.state.memory import InMemoryState, Store
from lexora_router.state.port import Answer, Batch, StateUnavailable
from lexora_router.state.programs import PROGRAMS


class Engines:
    """What the engines see: attempts under way at each address, the most that there were, and the seconds of all attempts."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.busy = 0.0
        self._at = 0.0

    def begin(self, address: str) -> None:
        self.so_far(now())
        self.running[address] += 1
        self.most[address] = max(self.most[address], self.running[address])

    def end(self, address: str) -> None:
        self.so_far(now())
        self.running[address] -= 1

    def so_far(self, instant: float) -> float:
        """Seconds of all attempts until now."""
        self.busy += sum(self.running.values()) * (instant - self._at)
        self._at = instant
        return self.busy


class LeasedEndpoint(FakeEndpoint):
    """An endpoint whose slots are leased."""

    guessed = False

    def __init__(self, leases: SlotLeases, address: str, limit: int) -> None:
        super().__init__(address=address, healthy=True)
        self.stated = limit
        self.lease = leases.endpoint("main", address, self.condition)

    def has_slot(self) -> bool:
        return self.condition.in_flight < self.lease.limit


class Delayed:
    """A store that takes a while to answer, in both directions, and may be gone. News take as long."""

    where = "memory"

    def __init__(self, state: InMemoryState, seconds: Callable[[], float]) -> None:
        self._state = state
        self._seconds = seconds
        self.gone = False
        self.exchanges = 0

    async def open(self) -> None:
        if self.gone:
            raise StateUnavailable("gone")

    async def exchange(self, batch: Batch) -> Answer:
        self.exchanges += 1
        await asyncio.sleep(self._seconds())
        if self.gone:
            raise StateUnavailable("gone")
        answer = await self._state.exchange(batch)
        await asyncio.sleep(self._seconds())
        return answer

    def on_news(self, heard: Callable[[str, str], None]) -> None:
        def later(program: str, member: str) -> None:
            asyncio.get_running_loop().call_later(self._seconds(), heard, program, member)

        self._state.on_news(later)

    async def leave(self, member: str) -> None:
        await self._state.leave(member)

    async def close(self) -> None:
        await self._state.close()


class Replica:
    """One replica: a pool of leased endpoints, and the link that leases for it."""

    def __init__(self, house: "House", limits: dict[str, int], **terms: Any) -> None:
        self.house = house
        self.state = Delayed(house.state, house.delay)
        self.link = StateLink(self.state, PROGRAMS, timeout=0.05, clock=now)
        self.leases = SlotLeases(self.link.nudge, asyncio.get_running_loop().call_later)
        self.endpoints = [LeasedEndpoint(self.leases, address, limit) for address, limit in limits.items()]
        self.lease = lease = self.leases.pool("main")
        self.pool = make_pool(*self.endpoints, lease=lease, max_size=10_000, timeout=1e6, **terms)
        lease.follow(self.endpoints)
        self.leases.follow([lease])
        self.link.join(self.leases)

    @property
    def held(self) -> int:
        return sum(endpoint.lease.limit for endpoint in self.endpoints)

    async def call(self, seconds: float, *, tokens: int = 0, **changes: Any) -> float:
        """One call; gives the seconds that it waited."""
        came = now()
        lease = await self.pool.admit(make_call(**changes))
        waited = now() - came
        try:
            address = (await lease.next()).address
            self.house.engines.begin(address)
            call = lease.call
            try:
                for _ in range(4):  # tokens come as the call runs
                    await asyncio.sleep(seconds / 4)
                    call.receipt.events += tokens // 4
            finally:
                self.house.engines.end(address)
            lease.ended(Outcome.GOOD)
        finally:
            lease.close()
        return waited

    async def client(self, tenant: str, until: float, seconds: Callable[[], float], **changes: Any) -> None:
        """A client that asks again as soon as it is answered."""
        while now() < until:
            length = seconds()
            waited = await self.call(length, tokens=round(length * 1000), account=tenant, **changes)
            self.house.served[tenant] += length
            self.house.waits.setdefault(tenant, []).append(waited)

    async def stop(self) -> None:
        await self.link.leave()


@dataclass(frozen=True)
class Clients:
    """So many clients of a tenant at a replica; `terms` are those of their calls."""

    replica: int
    tenant: str
    number: int
    terms: dict[str, Any] = field(default_factory=dict)


class House:
    """Replicas that share a store. `delay` is how long each way to the store takes, in seconds."""

    def __init__(self, delay: float = 0.0005, seed: int = 3) -> None:
        random = Random(seed)
        self.delay = lambda: random.uniform(0.5, 1.5) * delay
        self.store = Store(PROGRAMS)
        self.state = InMemoryState(self.store, now)
        self.engines = Engines()
        self.served: Counter[str] = Counter()
        self.waits: dict[str, list[float]] = {}
        self.replicas: list[Replica] = []
        self.utilisation = 0.0

    async def open(self, number: int, limits: dict[str, int], **terms: Any) -> None:
        self.replicas += [Replica(self, limits, **terms) for _ in range(number)]
        for replica in self.replicas:
            await replica.link.start()
        await asyncio.sleep(0.5)
        self.engines.most.clear()

    async def close(self) -> None:
        for replica in self.replicas:
            await replica.stop()

    async def load(self, clients: Sequence[Clients], length: float, seconds: float) -> None:
        """Clients for so long, whose calls take about so many seconds."""
        random = Random(5)
        self.served.clear()
        self.waits.clear()
        self.engines.most.clear()
        self.engines.so_far(now())
        self.engines.busy, until = 0.0, now() + length

        def duration() -> float:
            return random.uniform(0.8, 1.2) * seconds

        tasks = [
            asyncio.create_task(self.replicas[each.replica].client(each.tenant, until, duration, **each.terms))
            for each in clients
            for _ in range(each.number)
        ]
        await asyncio.sleep(length)
        limits = sum(endpoint.stated for endpoint in self.replicas[0].endpoints)
        self.utilisation = self.engines.so_far(now()) / (length * limits)
        for task in tasks:
            if task.done():
                task.result()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def forget(self) -> None:
        """The store loses its memory."""
        self.store.__init__(PROGRAMS)  # type: ignore[misc]


def jain(values: list[float]) -> float:
    """Jain's index of fairness: 1 when all are equal."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))
