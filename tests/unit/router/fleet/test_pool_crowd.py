import asyncio
import gc
import random
from collections import Counter

from tests.support.clock import jumping, now
from tests.unit.router.fleet.work import Work
from tests.unit.router.support import FakeEndpoint, make_call, make_pool

from lexora_contract.priority import HIGH, LOW, NORMAL
from lexora_router.call import Outcome
from lexora_router.errors import QueueFull
from lexora_router.fleet.pool import Pool


class Crowd:
    """Calls of several tenants and priorities, of which some leave at random and some have deadlines."""

    def __init__(self, pool: Pool, seed: int) -> None:
        self.pool = pool
        self.chance = random.Random(seed)
        self.results: Counter[str] = Counter()
        self.attempts = 0
        self.most = 0

    async def call(self, number: int) -> None:
        chance = self.chance
        patience = chance.uniform(0, 60) if chance.random() < 0.3 else None
        deadline = now() + patience if patience is not None else None
        call = make_call(priority=chance.choice([LOW, NORMAL, HIGH]), user=f"t{number % 20}", deadline=deadline)
        try:
            async with asyncio.timeout_at(deadline):
                lease = await self.pool.admit(call)
                try:
                    endpoint = await lease.next()
                    self.attempts += 1
                    assert deadline is None or now() <= deadline
                    self.most = max(self.most, endpoint.in_flight)
                    call.receipt.events = chance.randrange(100)
                    await asyncio.sleep(chance.uniform(0, 0.5))
                    lease.ended(Outcome.GOOD)
                finally:
                    lease.close()
            self.results["served"] += 1
        except TimeoutError:
            self.results["late"] += 1
        except QueueFull as refusal:
            self.results[refusal.cause] += 1

    async def run(self, count: int) -> None:
        tasks = [asyncio.create_task(self.call(number)) for number in range(count)]
        await asyncio.sleep(0)
        left = 0
        for task in self.chance.sample(tasks, count // 3):
            if not task.done():
                task.cancel()
                left += 1
            if self.chance.random() < 0.1:
                await asyncio.sleep(self.chance.uniform(0, 0.1))
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        cancelled = sum(isinstance(end, asyncio.CancelledError) for end in ends)
        assert cancelled == left
        assert [end for end in ends if end is not None and not isinstance(end, asyncio.CancelledError)] == []


async def objects() -> int:
    await asyncio.sleep(0)  # the loop's own handle of the last step knows all its tasks
    gc.collect()
    return len(gc.get_objects())


@jumping
async def test_ten_thousand_calls_that_come_and_go_lose_no_slot_and_no_memory() -> None:
    pool = make_pool(
        *(FakeEndpoint(limit=25, address=f"http://e:{i}") for i in range(2)), max_size=10_000, timeout=1e6, aging=30.0
    )
    await Crowd(pool, 1).run(1000)
    before = await objects()
    crowd = Crowd(pool, 2)
    await crowd.run(10_000)
    results = crowd.results
    assert crowd.most == 25
    assert results["served"] > 3000
    assert results["late"] + results["deadline"] > 500
    assert crowd.attempts >= results["served"]
    Work(pool).idle()
    del crowd
    assert await objects() - before < 500
    # Every slot still works.
    work = Work(pool)
    for number in range(60):
        await work.add(str(number), 5.0)
    assert (len(work.served), pool.waiting) == (50, 10)
    await work.done()
    work.idle()
