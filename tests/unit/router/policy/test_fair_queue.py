import gc
import random
import tracemalloc
from collections import Counter, defaultdict
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lexora_router.policy.fair_queue import FairQueue, QueueFull, Ticket
from lexora_router.policy.priority import CLASS, HIGH, LOW, NORMAL


def ticket(tenant: str = "a", priority: int = NORMAL, cost: float = 1.0, item: int = 0, weight: float = 1.0) -> Ticket[int]:
    return Ticket(tenant, priority, cost, item, weight)


def queue(max_size: int = 1000, aging: float = inf, max_idle: int = 512) -> FairQueue[int]:
    return FairQueue(max_size=max_size, aging=aging, max_idle=max_idle)


def drain(waiting: FairQueue[int], now: float = 0.0) -> list[Ticket[int]]:
    served = []
    while (one := waiting.pop(now)) is not None:
        served.append(one)
    return served


def test_an_empty_queue_gives_nothing() -> None:
    waiting = queue()
    assert waiting.pop(0.0) is None
    assert len(waiting) == 0


def test_one_tenant_of_one_priority_is_served_first_in_first_out() -> None:
    waiting = queue()
    for item in range(20):
        waiting.push(ticket(item=item, cost=20 - item), float(item))
    assert [served.item for served in drain(waiting)] == list(range(20))


def test_higher_priorities_go_first_names_and_numbers_alike() -> None:
    waiting = queue()
    for priority in (LOW, 49, NORMAL, 51, HIGH, 1):
        waiting.push(ticket(priority=priority), 0.0)
    assert [served.priority for served in drain(waiting)] == [100, 51, 50, 49, 1, 0]


def test_tenants_take_turns_however_many_calls_one_has() -> None:
    waiting = queue()
    for _ in range(10):
        waiting.push(ticket("batch"), 0.0)
    for _ in range(3):
        waiting.push(ticket("chat"), 0.0)
    order = [served.tenant for served in drain(waiting)]
    assert order[:6] == ["batch", "chat"] * 3
    assert set(order[6:]) == {"batch"}


def test_twice_the_weight_is_twice_the_share() -> None:
    waiting = queue()
    for _ in range(60):
        waiting.push(ticket("gold", weight=2.0), 0.0)
        waiting.push(ticket("iron"), 0.0)
    first = Counter(served.tenant for served in drain(waiting)[:60])
    assert first == {"gold": 40, "iron": 20}


def test_generated_tokens_count_as_much_as_input() -> None:
    waiting = queue()
    for _ in range(11):
        waiting.push(ticket("talker", cost=1), 0.0)
        waiting.push(ticket("listener", cost=1), 0.0)
    served = []
    for _ in range(12):
        one = waiting.pop(0.0)
        assert one is not None
        served.append(one.tenant)
        waiting.charge(one, 9 if one.tenant == "talker" else 0)
    assert Counter(served) == {"listener": 10, "talker": 2}


def test_silence_earns_no_credit() -> None:
    waiting = queue()
    for _ in range(100):
        waiting.push(ticket("busy", cost=10), 0.0)
    for _ in range(50):
        waiting.pop(0.0)
    for _ in range(100):
        waiting.push(ticket("quiet", cost=10), 0.0)
    assert Counter(waiting.pop(0.0).tenant for _ in range(20)) == {"busy": 10, "quiet": 10}  # type: ignore[union-attr]  # not empty


def test_a_newcomer_to_an_empty_queue_starts_where_the_last_one_left() -> None:
    waiting = queue()
    waiting.push(ticket("busy", cost=500), 0.0)
    drain(waiting)
    for _ in range(10):
        waiting.push(ticket("quiet"), 0.0)
        waiting.push(ticket("busy"), 0.0)
    assert Counter(served.tenant for served in drain(waiting)[:10]) == {"busy": 5, "quiet": 5}


def test_debt_outlasts_a_short_absence() -> None:
    waiting = queue()
    for tenant in ("greedy", "modest", "modest", "modest"):
        waiting.push(ticket(tenant, cost=1), 0.0)
    first = waiting.pop(0.0)
    assert first is not None
    waiting.charge(first, 100)
    waiting.push(ticket("greedy"), 0.0)
    assert [served.tenant for served in drain(waiting)] == ["modest"] * 3 + ["greedy"]


def test_the_bound_on_size_holds_and_leaving_makes_room() -> None:
    waiting = queue(max_size=2)
    first = ticket()
    waiting.push(first, 0.0)
    waiting.push(ticket(), 0.0)
    with pytest.raises(QueueFull):
        waiting.push(ticket(), 0.0)
    assert waiting.remove(first)
    waiting.push(ticket(), 0.0)
    assert len(waiting) == 2


def test_who_left_is_never_served_and_leaves_once() -> None:
    waiting = queue()
    tickets = [ticket(item=item) for item in range(4)]
    for one in tickets:
        waiting.push(one, 0.0)
    assert waiting.remove(tickets[0])
    assert waiting.remove(tickets[2])
    assert not waiting.remove(tickets[2])
    assert tickets[2] not in waiting
    assert [served.item for served in drain(waiting)] == [1, 3]
    assert not waiting.remove(tickets[1])


@pytest.mark.parametrize(
    "bad", [ticket(priority=101), ticket(priority=-1), ticket(cost=-1), ticket(weight=0), ticket(cost=float("nan"))]
)
def test_a_ticket_out_of_range_is_refused(bad: Ticket[int]) -> None:
    with pytest.raises(ValueError, match="a ticket has"):
        queue().push(bad, 0.0)


def test_a_ticket_cannot_wait_twice() -> None:
    waiting, one = queue(), ticket()
    waiting.push(one, 0.0)
    with pytest.raises(ValueError, match="waits already"):
        waiting.push(one, 0.0)


@pytest.mark.parametrize(
    "settings_", [{"max_size": 0, "aging": 1.0}, {"max_size": 1, "aging": 0.0}, {"max_size": 1, "aging": float("nan")}]
)
def test_settings_out_of_range_are_refused(settings_: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        FairQueue(**settings_)  # type: ignore[arg-type]  # on purpose


def test_tokens_are_never_given_back() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        queue().charge(ticket(), -1)


# Ageing


def test_a_priority_gains_one_class_per_aging_seconds() -> None:
    waiting = queue(aging=10.0)
    waiting.push(ticket(priority=LOW, cost=0), 0.0)
    for now, fresh, first in ((9.9, NORMAL, NORMAL), (10.1, 49, LOW)):
        waiting.push(ticket(priority=fresh), now)
        served = waiting.pop(now)
        assert served is not None
        assert served.priority == first


@pytest.mark.parametrize(("priority", "classes"), [(LOW, 2), (49, 2), (NORMAL, 1), (99, 1)])
def test_under_endless_high_load_every_priority_is_served_within_its_bound(priority: int, classes: int) -> None:
    """One call a second is served, two high ones a second come; three `low` flows wait from the start, two calls each."""
    aging = 10.0
    waiting = queue(max_size=10_000, aging=aging)
    for tenant in "xyz":
        for _ in range(2):
            waiting.push(ticket(tenant, priority), 0.0)
    served_at = []
    for second in range(100):
        for tenant in "ab":
            waiting.push(ticket(tenant, HIGH), float(second))
        served = waiting.pop(float(second))
        assert served is not None
        if served.priority == priority:
            served_at.append(second)
    promoted, flows = aging * classes, 5
    assert len(served_at) == 6
    assert min(served_at) >= promoted
    assert max(served_at) <= promoted + 2 * flows


def test_aged_work_shares_the_top_and_does_not_take_it_over() -> None:
    waiting = queue(max_size=10_000, aging=1.0)
    for _ in range(500):
        waiting.push(ticket("batch", LOW), 0.0)
    served: Counter[str] = Counter()
    for step in range(200):
        now = 100 + step * 0.01
        waiting.push(ticket("chat", HIGH), now)
        one = waiting.pop(now)
        assert one is not None
        served[one.tenant] += 1
    assert served == {"chat": 100, "batch": 100}


def test_an_old_batch_does_not_outrank_fresh_calls_of_its_own_priority() -> None:
    waiting = queue(max_size=10_000, aging=1.0)
    for _ in range(500):
        waiting.push(ticket("batch", NORMAL), 0.0)
    for step in range(50):
        now = 100.0 + step
        waiting.pop(now)
        waiting.push(ticket("chat", NORMAL), now)
        served = [waiting.pop(now), waiting.pop(now)]
        assert "chat" in {one.tenant for one in served if one is not None}


def test_a_tenant_gains_nothing_by_spreading_over_priorities() -> None:
    waiting = queue(max_size=10_000, aging=1.0)
    for priority in range(100):
        for _ in range(20):
            waiting.push(ticket("sly", priority), 0.0)
    for _ in range(1000):
        waiting.push(ticket("plain", HIGH), 0.0)
    served: Counter[str] = Counter()
    for _ in range(1000):
        one = waiting.pop(50.0)
        assert one is not None
        served[one.tenant] += 1
    assert served["sly"] <= 600


# Fairness


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
    waiting = queue(max_size=100_000, aging=aging)
    engine = Engine(waiting, slots=8)
    rate = {f"tenant{i}": 0.1 if i == 0 else 0.01 for i in range(10)}  # calls a step: 3 times what the engine can do
    for _ in range(20_000):
        for tenant, calls in rate.items():
            if chance.random() < calls:
                waiting.push(ticket(tenant, NORMAL, chance.randrange(1, 400), chance.randrange(1, 250)), engine.now)
        engine.step()
    assert len(waiting) > 100
    backlogged = [engine.tokens[tenant] for tenant in rate]
    assert jain(backlogged) >= 0.95


@settings(max_examples=60)
@given(st.randoms(use_true_random=False), st.integers(2, 5), st.integers(1, 6), st.sampled_from([1.0, 2.0, 4.0]))
def test_backlogged_tenants_never_drift_apart_beyond_the_bound(
    chance: random.Random, tenants: int, slots: int, heavy: float
) -> None:
    """Theorem 4.4 of the paper: service in any interval differs by at most 2 max(input of a call, output of those that run)."""
    waiting = queue(max_size=10_000)
    weight = {f"t{i}": heavy if i == 0 else 1.0 for i in range(tenants)}
    for tenant, share in weight.items():
        for _ in range(200):
            waiting.push(ticket(tenant, NORMAL, chance.randrange(1, 101), chance.randrange(1, 21), share), 0.0)
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


# Estimates


def test_the_position_of_each_ticket_of_equal_cost_is_close_to_the_order_of_service() -> None:
    waiting = queue()
    for priority in (LOW, HIGH, NORMAL):
        for index in range(12):
            waiting.push(ticket("abbccc"[index % 6], priority), 0.0)
    everyone = [one for band in waiting._bands.values() for one in band.waiting]
    told = {id(one): waiting.position(one, 0.0) for one in everyone}
    for place, served in enumerate(drain(waiting)):
        assert abs(told[id(served)] - place) <= 2


def test_the_position_of_who_does_not_wait_is_an_error() -> None:
    waiting, one = queue(), ticket()
    with pytest.raises(KeyError):
        waiting.position(one, 0.0)
    waiting.push(one, 0.0)
    assert waiting.position(one, 0.0) == 0
    waiting.pop(0.0)
    with pytest.raises(KeyError):
        waiting.position(one, 0.0)


def test_ahead_counts_higher_levels_the_own_flow_and_the_turns_of_the_others() -> None:
    waiting = queue(aging=10.0)
    for tenant, priority, calls in (("x", HIGH, 3), ("a", NORMAL, 2), ("b", NORMAL, 9), ("y", LOW, 5)):
        for _ in range(calls):
            waiting.push(ticket(tenant, priority), 0.0)
    assert waiting.ahead(HIGH, 0.0, "x") == 3
    assert waiting.ahead(HIGH, 0.0, "new") == 1
    assert waiting.ahead(NORMAL, 0.0, "a") == 3 + 2 + 3
    assert waiting.ahead(NORMAL, 0.0, "new") == 3 + 1 + 1
    assert waiting.ahead(NORMAL, 0.0, "new", weight=0.25) == 3 + 2 + 4
    assert waiting.ahead(LOW, 0.0, "new") == 3 + 11 + 1
    assert waiting.ahead(LOW, 20.0, "new") == 4  # everything waits in the top level by now


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([LOW, 30, NORMAL, HIGH])), max_size=40), st.integers(0, 100))
def test_estimates_are_never_beyond_the_queue(calls: list[tuple[str, int]], priority: int) -> None:
    waiting = queue(aging=10.0)
    tickets = [ticket(*call) for call in calls]
    for index, one in enumerate(tickets):
        waiting.push(one, float(index))
    now = float(len(calls))
    assert 0 <= waiting.ahead(priority, now, "a") <= len(waiting)
    assert all(0 <= waiting.position(one, now) < len(waiting) for one in tickets)


# Memory


def test_memory_comes_back_after_many_came_and_left() -> None:
    waiting = queue(aging=10.0, max_idle=100)
    held: list[Ticket[int]] = []
    chance = random.Random(3)

    def churn(times: int) -> None:
        for index in range(times):
            one = ticket(f"tenant{index}", chance.randrange(101))
            waiting.push(one, float(index))
            held.append(one)
            if len(held) == 50:
                chance.shuffle(held)
                while held:
                    waiting.remove(held.pop())

    tracemalloc.start()
    try:
        churn(10_000)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        churn(100_000)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(waiting) == 0
    assert after - before < 50_000
    assert all(len(band._flows) <= 101 and len(band._heap) <= 20 for band in waiting._bands.values())


def test_the_counters_of_idle_tenants_are_bounded_when_each_owes() -> None:
    waiting = queue(max_idle=100)
    for index in range(5000):
        waiting.push(ticket(f"tenant{index}"), 0.0)
        served = waiting.pop(0.0)
        assert served is not None
        waiting.charge(served, 1000 + index)
    band = waiting._bands[NORMAL]
    assert len(band._flows) <= 101
    assert len(band._idle) <= 101


# Against a slow model


class Model:
    """The same queue, found anew each time from plain lists."""

    def __init__(self, aging: float) -> None:
        self.aging = aging
        self.waiting: list[Ticket[int]] = []
        self.counter: dict[tuple[int, str], float] = defaultdict(float)
        self.started: dict[tuple[int, str], int] = {}
        self.last: dict[int, tuple[int, str]] = {}
        self.lift: dict[int, float] = defaultdict(float)
        self.front = 0.0
        self.starts = 0

    def flow(self, one: Ticket[int]) -> tuple[int, str]:
        return one.priority, one.tenant

    def flows(self, priority: int) -> set[tuple[int, str]]:
        return {self.flow(one) for one in self.waiting if one.priority == priority}

    def floor(self, priority: int) -> float:
        active = self.flows(priority)
        if active:
            return min(self.counter[flow] for flow in active)
        return self.counter[self.last[priority]] if priority in self.last else 0.0

    def push(self, one: Ticket[int]) -> None:
        flow = self.flow(one)
        if flow not in self.flows(one.priority):
            self.counter[flow] = max(self.counter[flow], self.floor(one.priority))
            self.starts += 1
            self.started[flow] = self.starts
        self.waiting.append(one)

    def level(self, priority: int, now: float) -> int:
        oldest = min(one.arrived for one in self.waiting if one.priority == priority)
        return min(HIGH, priority + CLASS * int((now - oldest) / self.aging))

    def pop(self, now: float) -> tuple[Ticket[int], int]:
        """The next one, and among how many flows its tenant's weight is divided."""
        priorities = {one.priority for one in self.waiting}
        top = max(self.level(priority, now) for priority in priorities)
        tied = [priority for priority in priorities if self.level(priority, now) == top]
        for priority in tied:
            self.lift[priority] += max(0.0, self.front - self.lift[priority] - self.floor(priority))
        priority = min(tied, key=lambda p: (self.lift[p] + self.floor(p), -p))
        self.front = max(self.front, self.lift[priority] + self.floor(priority))
        flow = min(self.flows(priority), key=lambda f: (self.counter[f], self.started[f]))
        one = next(one for one in self.waiting if self.flow(one) == flow)
        parts = len({other.priority for other in self.waiting if other.tenant == one.tenant and other.priority in tied})
        self.waiting.remove(one)
        self.counter[flow] += one.cost / (one.weight / parts)
        self.last[priority] = flow
        return one, parts


class AgainstTheModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue: FairQueue[int] = FairQueue(max_size=30, aging=8.0, max_idle=10_000)
        self.model = Model(8.0)
        self.served: list[tuple[Ticket[int], int]] = []
        self.pushed = 0
        self.left = 0

    @rule(
        tenant=st.sampled_from("abcde"),
        priority=st.sampled_from([LOW, 20, NORMAL, 70, HIGH]),
        cost=st.integers(0, 64),
        weight=st.sampled_from([0.5, 1.0, 2.0]),
    )
    def push(self, tenant: str, priority: int, cost: int, weight: float) -> None:
        one = ticket(tenant, priority, cost, self.pushed, weight)
        if len(self.model.waiting) == 30:
            with pytest.raises(QueueFull):
                self.queue.push(one, self.now)
            return
        self.queue.push(one, self.now)
        self.model.push(one)
        self.pushed += 1

    @rule()
    def pop(self) -> None:
        one = self.queue.pop(self.now)
        if not self.model.waiting:
            assert one is None
            return
        expected, parts = self.model.pop(self.now)
        assert one is expected
        self.served.append((expected, parts))

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.model.waiting))
        assert self.queue.remove(one)
        self.model.waiting.remove(one)
        self.left += 1

    @precondition(lambda self: self.served)
    @rule(data=st.data(), tokens=st.integers(0, 64))
    def generate(self, data: st.DataObject, tokens: int) -> None:
        one, parts = data.draw(st.sampled_from(self.served))
        self.queue.charge(one, tokens)
        self.model.counter[self.model.flow(one)] += tokens / (one.weight / parts)

    @rule(seconds=st.integers(1, 10))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        assert len(self.queue) == len(self.model.waiting) == self.pushed - len(self.served) - self.left
        assert all(one in self.queue for one in self.model.waiting)
        assert not any(one in self.queue for one, _ in self.served)


AgainstTheModel.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestAgainstTheModel = AgainstTheModel.TestCase


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 100), st.integers(0, 50)), min_size=1, max_size=50))
def test_without_ageing_priorities_come_out_in_order_and_all_come_out(calls: list[tuple[str, int, int]]) -> None:
    waiting = queue()
    for index, (tenant, priority, cost) in enumerate(calls):
        waiting.push(ticket(tenant, priority, cost, index), float(index))
    served = drain(waiting, 1e6)
    assert sorted(one.item for one in served) == list(range(len(calls)))
    assert all(a.priority >= b.priority for a, b in pairwise(served))
