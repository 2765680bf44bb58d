"""Calls in a pool, for its tests."""

import asyncio
from typing import Any

from tests.support.clock import now
from tests.unit.router.support import FakeEndpoint, make_call

from lexora_router.call import Call, Outcome
from lexora_router.fleet.pool import Pool


class Work:
    """Calls in a pool: each holds its slot for a while. Remembers who was served when and where."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.served: list[str] = []
        self.at: dict[str, float] = {}
        self.where: dict[str, str] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def hold(self, call: Call, seconds: float, tokens: int = 0, outcome: Outcome = Outcome.GOOD) -> None:
        lease = await self.pool.admit(call)
        try:
            endpoint = await lease.next()
            self.served.append(call.id)
            self.at[call.id], self.where[call.id] = now(), endpoint.address
            call.receipt.events = tokens
            await asyncio.sleep(seconds)
            lease.ended(outcome)
        finally:
            lease.close()

    async def add(self, name: str, seconds: float = 1.0, *, tokens: int = 0, **changes: Any) -> asyncio.Task[None]:
        """Begin a call and let it come as far as it can."""
        self.tasks[name] = task = asyncio.create_task(self.hold(make_call(id=name, **changes), seconds, tokens))
        await asyncio.sleep(0)
        return task

    async def done(self) -> None:
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    async def stop(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await self.done()

    def idle(self) -> None:
        """Everything is back to zero."""
        assert [endpoint.in_flight for endpoint in self.pool.endpoints] == [0] * len(self.pool.endpoints)
        assert self.pool.waiting == 0
        assert not self.pool.running


def open_breaker(*endpoints: FakeEndpoint) -> None:
    for endpoint in endpoints:
        endpoint.condition._breaker.trip(now())
