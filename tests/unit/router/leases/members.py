"""Members of a store that lease slots, without an event loop: each step is the test's, and any exchange may be lost."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, Protocol

from hypothesis import strategies as st

from lexora_router.leases.slots import EndpointLease, Served, SlotLeases
from lexora_router.policy.counted_queue import CountedQueue
from lexora_router.policy.fair_band import Ticket
from lexora_router.state.program import Turn
from lexora_router.state.programs.slots import Flow, SlotsAnswer, SlotsAsk, SlotsProgram

LIMITS = {"http://e:1": 5, "http://e:2": 3}
TTL = 3.0


class SlotStore(Protocol):
    """The store of these tests; None: it does not know the member."""

    @property
    def now(self) -> float: ...
    def advance(self, eighths: int) -> None: ...
    def exchange_slots(self, member: str, ask: SlotsAsk, *, join: bool) -> SlotsAnswer | None: ...


class SlotsInMemory:
    """The program alone."""

    def __init__(self) -> None:
        self.program = SlotsProgram()
        self.now = 1000.0
        self.members: dict[str, float] = {}

    def advance(self, eighths: int) -> None:
        self.now += eighths / 8

    def exchange_slots(self, member: str, ask: SlotsAsk, *, join: bool) -> SlotsAnswer | None:
        self.members = {each: until for each, until in self.members.items() if until > self.now}
        if not join and member not in self.members:
            return None
        self.members[member] = self.now + TTL
        return None if join else self.program.run(ask, Turn(member, self.now, self.members))


@dataclass
class FakeCondition:
    in_flight: int = 0
    open: bool = True

    def may_serve(self, now: float) -> bool:
        return self.open


@dataclass
class FakeEndpoint:
    address: str
    stated: int
    lease: EndpointLease
    guessed: bool = False


@dataclass
class Calls:
    """Calls of a member: those that wait, and where others run."""

    queue: CountedQueue[str] = field(default_factory=lambda: CountedQueue(aging=30.0))
    running: list[tuple[Ticket[str], EndpointLease]] = field(default_factory=list)

    def flows(self, now: float) -> list[Flow]:
        running = Counter(f"{ticket.priority}/{ticket.tenant}" for ticket, _ in self.running)
        rows = [
            Flow(key, flow.priority, flow.level, flow.weight, flow.waiting, running.pop(key, 0))
            for flow in self.queue.flows(now)
            for key in [f"{flow.priority}/{flow.tenant}"]
        ]
        return rows + [Flow(key, int(key.split("/")[0]), int(key.split("/")[0]), 1.0, 0, n) for key, n in running.items()]

    def served(self) -> Served:
        charges, tokens, calls = self.queue.take_served()
        return Served(tuple((f"{priority}/{tenant}", amount) for (priority, tenant), amount in charges.items()), tokens, calls)

    def charge_others(self, key: str, amount: float) -> None:
        priority, _, tenant = key.partition("/")
        self.queue.charge_others(int(priority), tenant, amount)

    def dispatch(self) -> None:
        pass


class Never:
    """What never happens."""

    def cancel(self) -> None: ...


class Member:
    """One replica's leases, and calls that take and give back slots."""

    numbers = count()

    def __init__(self, store: SlotStore, limits: dict[str, int]) -> None:
        self.store = store
        self.leases = SlotLeases(lambda: None, lambda *_: Never())
        self.pool = self.leases.pool("main")
        self.calls = Calls()
        self.pool.serve(self.calls)
        self.endpoints = [
            FakeEndpoint(address, limit, self.leases.endpoint("main", address, FakeCondition()))
            for address, limit in limits.items()
        ]
        self.pool.follow(self.endpoints)
        self.leases.follow([self.pool])
        self.name = ""
        self.clock = store.now
        self.alone = False
        self.heard_at = -1e9
        self.join()

    def join(self) -> None:
        """Be a member that the store has never had."""
        self.name = f"m{next(self.numbers)}"
        self.store.exchange_slots(self.name, SlotsAsk(()), join=True)
        self.heard_at = self.store.now
        self.alone = False
        self.leases.together(self.store.now, fresh=True)

    def exchange(self, lost: str = "") -> None:
        """One exchange; it may be lost on its way `there`, or `back`."""
        self.clock += 0.02  # exchanges have their gap
        ask = self.leases.ask(self.clock)
        if lost == "there":
            return
        answer = self.store.exchange_slots(self.name, ask, join=False)
        if answer is None:
            self.join()
        elif not lost:
            self.heard_at = self.store.now
            if self.alone:
                self.alone = False
                self.leases.together(self.store.now, fresh=False)
                return
            self.leases.hear(answer, self.clock)
            self.start()

    def arrive(self, tenant: str, priority: int) -> None:
        self.pool.waits(priority, self.calls.queue.top(self.store.now))
        self.calls.queue.push(Ticket(tenant, priority, 10.0, ""), self.store.now)
        self.start()

    def start(self) -> None:
        """Let calls that wait have the free slots."""
        while self.calls.queue.size:
            free = [each.lease for each in self.endpoints if each.lease.condition.in_flight < each.lease.limit]
            if not free:
                return
            ticket = self.calls.queue.pop(self.store.now)
            assert ticket is not None
            free[0].condition.in_flight += 1
            self.calls.running.append((ticket, free[0]))

    def finish(self, place: int) -> None:
        """One of the calls ends."""
        if self.calls.running:
            ticket, lease = self.calls.running.pop(place % len(self.calls.running))
            self.calls.queue.charge(ticket, 100.0)
            self.pool.releases(lease)
            lease.condition.in_flight -= 1
            self.start()

    @property
    def living(self) -> bool:
        """Whether the store still counts what it holds as its own."""
        return self.store.now < self.heard_at + TTL


def taken(members: list[Member], address: str) -> int:
    """Slots at an endpoint that living members hold or use."""
    return sum(
        max(each.lease.limit, each.lease.condition.in_flight)
        for member in members
        if member.living
        for each in member.endpoints
        if each.address == address
    )


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("exchange"), st.integers(0, 3), st.sampled_from(["", "", "", "", "there", "back"])),
        st.tuples(st.just("exchange"), st.integers(0, 3), st.just("")),
        st.tuples(st.just("arrive"), st.integers(0, 3), st.tuples(st.sampled_from("xyz"), st.sampled_from([0, 50, 50, 100]))),
        st.tuples(st.just("arrive"), st.integers(0, 3), st.tuples(st.sampled_from("xyz"), st.just(50))),
        st.tuples(st.just("finish"), st.integers(0, 3), st.integers(0, 9)),
        st.tuples(st.just("advance"), st.just(0), st.sampled_from([1, 1, 1, 2, 25])),
        st.tuples(st.just("die"), st.integers(0, 3), st.none()),
        st.tuples(st.just("open"), st.integers(0, 3), st.booleans()),
    ),
    max_size=80,
)


def play(store: SlotStore, steps: list[Any], limits: dict[str, int] = LIMITS) -> list[Member]:
    """Do these steps. What living members hold and use is never above a limit, until one has been alone."""
    members = [Member(store, limits) for _ in range(4)]
    been_alone = False
    for what, place, more in steps:
        member = members[place % len(members)]
        if what == "exchange":
            member.exchange(more)
        elif what == "arrive":
            member.arrive(*more)
        elif what == "finish":
            member.finish(more)
        elif what == "advance":
            store.advance(more)
        elif what == "open":
            member.endpoints[0].lease.condition.open = more
        elif what == "alone":
            member.alone = been_alone = True
            member.leases.alone(1 / len(members), store.now)
            member.start()
        else:  # its calls die with it, and another process takes its place
            members[members.index(member)] = Member(store, limits)
            store.advance(0)
        for address, limit in limits.items():
            assert taken(members, address) <= limit or been_alone, (what, place, more)
    return members


def made_up(seed: int, number: int, *, ends: tuple[str, ...] = ("die",)) -> list[Any]:
    """A long run of steps: calls that come and end, now here, now there, and exchanges; now and then one of `ends`."""
    random = Random(seed)
    steps: list[Any] = []
    for _ in range(number):
        busy, priority = random.choice((0, 0, 1, 1, 1, 2, 3)), random.choice((0, 0, 50, 50, 50, 100))
        steps.append(("arrive", busy, (random.choice("xyz"), priority)))
        steps += [("finish", random.randrange(4), random.randrange(9)) for _ in range(random.randrange(3))]
        if random.random() < 0.7:
            steps.append(("exchange", random.randrange(4), random.choice(("", "", "", "", "", "there", "back"))))
        if random.random() < 0.3:
            steps.append(("advance", 0, 1))
        if random.random() < 0.03:
            steps.append(("open", random.randrange(4), random.random() < 0.7))
        if random.random() < 0.02:
            steps.append((random.choice(ends), random.randrange(4), None))
        if random.random() < 0.05:  # a quiet time
            steps += [("finish", place, 0) for place in range(4) for _ in range(20)]
            steps += [("exchange", place, "") for place in (0, 1, 2, 3, 3, 2, 1, 0)]
    return steps
