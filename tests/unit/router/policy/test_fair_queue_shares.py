"""What each tenant gets of an engine that serves from the queue."""

import random
from collections import defaultdict
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_contract.priority import LOW, NORMAL
from lexora_router.policy.fair_band import Ticket
from lexora_router.policy.fair_queue import FairQueue


def jain(shares: list[float]) -> float:
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


class Engine:
    """Serves from a queue with some slots: each call gives one token a step, and is charged for it."""

    def __init__(self, waiting: FairQueue[int], slots: int) -> None:
        self.waiting = waiting
        self.slots = slots
        self.now = 0.0
        self.running: list[tuple[Ticket[int], int]] = []
        self.tokens: dict[str, float] = defaultdict(float)

    def step(self) -> None:
        self.now += 1.0
        while len(self.running) < self.slots and (one := self.waiting.pop(self.now)) is not None:
            self.tokens[one.tenant] += one.cost
            self.running.append((one, one.item))
        for one, _ in self.running:
            self.waiting.charge(one, 1)
            self.tokens[one.tenant] += 1
        self.running = [(one, left - 1) for one, left in self.running if left > 1]


@pytest.mark.parametrize("aging", [inf, 50.0])
def test_ten_tenants_of_whom_one_sends_ten_times_as_much_get_equal_shares(aging: float) -> None:
    chance = random.Random(7)
    waiting: FairQueue[int] = FairQueue(aging=aging)
    engine = Engine(waiting, slots=8)
    rate = {f"tenant{i}": 0.1 if i == 0 else 0.01 for i in range(10)}  # calls a step: 3 times what the engine can do
    for _ in range(20_000):
        for tenant, calls in rate.items():
            if chance.random() < calls:
                waiting.push(Ticket(tenant, NORMAL, chance.randrange(1, 400), chance.randrange(1, 250)), engine.now)
        engine.step()
    assert len(waiting) > 100
    backlogged = [engine.tokens[tenant] for tenant in rate]
    assert jain(backlogged) >= 0.95


@given(st.randoms(use_true_random=False), st.integers(2, 5), st.integers(1, 6), st.sampled_from([1.0, 2.0, 4.0]))
def test_backlogged_tenants_never_drift_apart_beyond_the_bound(
    chance: random.Random, tenants: int, slots: int, heavy: float
) -> None:
    """The bound of the paper: service in any interval differs by at most 2 max(input of a call, output of those that run)."""
    waiting: FairQueue[int] = FairQueue(aging=inf)
    weight = {f"t{i}": heavy if i == 0 else 1.0 for i in range(tenants)}
    for tenant, share in weight.items():
        for _ in range(200):
            waiting.push(Ticket(tenant, NORMAL, chance.randrange(1, 101), chance.randrange(1, 21), share), 0.0)
    engine = Engine(waiting, slots)
    bound = 2 * (100 + slots * 20)
    marks = [dict.fromkeys(weight, 0.0)]
    for _ in range(200):
        engine.step()
        marks.append({tenant: engine.tokens[tenant] / weight[tenant] for tenant in weight})
    for _ in range(100):
        a, b = sorted((chance.randrange(201), chance.randrange(201)))
        gained = [marks[b][tenant] - marks[a][tenant] for tenant in weight]
        assert max(gained) - min(gained) <= bound


def test_a_tenant_that_had_the_engine_to_itself_owes_nothing_to_those_that_come_later() -> None:
    waiting: FairQueue[str] = FairQueue(aging=inf)
    for _ in range(1000):  # nobody waits, so that its calls go at once
        ticket = Ticket("early", NORMAL, 100.0, "early")
        waiting.serve(ticket)
        waiting.charge(ticket, 1000)
    for _ in range(20):
        waiting.push(Ticket("late", NORMAL, 100.0, "late"), 0.0)
        waiting.push(Ticket("early", NORMAL, 100.0, "early"), 0.0)
    served = [waiting.pop(0.0) for _ in range(20)]
    assert sum(ticket is not None and ticket.item == "early" for ticket in served) in (9, 10, 11)


def test_what_was_served_at_once_is_charged_by_weight() -> None:
    waiting: FairQueue[str] = FairQueue(aging=inf)
    for weight in (4.0, 1.0):
        ticket = Ticket(f"weight {weight}", NORMAL, 100.0, "", weight)
        waiting.serve(ticket)
        assert ticket.share == weight


def test_priorities_that_were_served_at_once_earn_the_others_no_credit() -> None:
    waiting: FairQueue[str] = FairQueue(aging=10.0)
    for _ in range(1000):
        waiting.serve(Ticket("a", NORMAL, 100.0, ""))
    for _ in range(20):
        waiting.push(Ticket("b", LOW, 100.0, "low"), 0.0)
    for _ in range(20):
        waiting.push(Ticket("a", NORMAL, 100.0, "normal"), 10.0)
    served = [waiting.pop(10.0) for _ in range(20)]  # the low ones have aged to the same level
    assert sum(ticket is not None and ticket.item == "low" for ticket in served) in (9, 10, 11)
