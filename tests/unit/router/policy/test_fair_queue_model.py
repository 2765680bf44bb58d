"""The queue against a slow model that finds everything anew each time."""

from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lexora_contract.priority import CLASS, HIGH, LOW, NORMAL
from lexora_router.policy.fair_band import Ticket
from lexora_router.policy.fair_queue import FairQueue


class Model:
    """The same queue, found anew each time from plain lists."""

    def __init__(self, aging: float) -> None:
        self.aging = aging
        self.waiting: list[Ticket[int]] = []
        self.counter: dict[tuple[int, str], float] = defaultdict(float)
        self.started: dict[tuple[int, str], int] = {}
        self.last: dict[int, tuple[int, str]] = {}
        self.left: dict[int, float] = defaultdict(float)
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
        return max(self.left[priority], self.counter[self.last[priority]] if priority in self.last else 0.0)

    def leave(self, one: Ticket[int]) -> None:
        self.waiting.remove(one)
        if not self.flows(one.priority):
            self.left[one.priority] = max(self.left[one.priority], self.counter[self.flow(one)])

    def charge(self, one: Ticket[int], amount: float) -> None:
        flow = self.flow(one)
        if flow not in self.flows(one.priority):
            self.counter[flow] = max(self.counter[flow], self.floor(one.priority))
        self.counter[flow] += amount

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
        self.counter[flow] += one.cost / (one.weight / parts)
        self.last[priority] = flow
        self.leave(one)
        return one, parts


class AgainstTheModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue: FairQueue[int] = FairQueue(aging=8.0, max_idle=10_000)
        self.model = Model(8.0)
        self.served: list[tuple[Ticket[int], int]] = []
        self.pushed = 0
        self.left = 0

    @rule(
        tenant=st.sampled_from("abc"),
        priority=st.sampled_from([LOW, 20, NORMAL, HIGH]),
        cost=st.sampled_from([0, 1, 2, 3, 8, 64]),
        weight=st.sampled_from([0.5, 1.0, 2.0]),
    )
    def push(self, tenant: str, priority: int, cost: int, weight: float) -> None:
        one = Ticket(tenant, priority, cost, self.pushed, weight)
        if len(self.model.waiting) == 30:
            return  # long enough
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
        self.model.leave(one)
        self.left += 1

    @precondition(lambda self: self.served)
    @rule(data=st.data(), tokens=st.sampled_from([0, 1, 2, 5, 64]))
    def generate(self, data: st.DataObject, tokens: int) -> None:
        one, parts = data.draw(st.sampled_from(self.served))
        self.queue.charge(one, tokens)
        self.model.charge(one, tokens / (one.weight / parts))

    @rule(seconds=st.integers(1, 10))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        assert len(self.queue) == len(self.model.waiting) == self.pushed - len(self.served) - self.left
        assert all(one in self.queue for one in self.model.waiting)
        assert not any(one in self.queue for one, _ in self.served)


AgainstTheModel.TestCase.settings = settings(stateful_step_count=60)
TestAgainstTheModel = AgainstTheModel.TestCase
