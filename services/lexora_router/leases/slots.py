"""The slots that this replica holds of each endpoint: leased from the store, given back where other replicas lack them.

A lease is a number that the endpoint compares its attempts with, so a call that finds a free slot pays nothing for it. Without
the store a replica goes on with what it holds for as long as the store keeps that for it. Then it is alone, with each nth slot
of a pool, n being the replicas it last heard of: the same limits in all. Where that is not one slot it has one, since calls go
on: with more replicas than slots at most one per replica is too many.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol
from weakref import WeakValueDictionary

from lexora_router.state.link import TTL_SECONDS
from lexora_router.state.programs.slots import (
    ANY_NUMBER,
    NO_CAP,
    EndpointClaim,
    EndpointGrant,
    Flow,
    PoolClaim,
    PoolGrant,
    SlotsAnswer,
    SlotsAsk,
)

SLACK_SECONDS = 0.002
REPEAT_SECONDS = 1.0
"""A claim that has not changed is made again after so long, for the attempts of others at its endpoints."""
GAP_SECONDS = 0.1
"""From one claim of a pool to the next. The more there is to look at for the store, the longer."""
URGENT = 0.1
"""The part of it after which a claim is made that calls of this replica or of others wait for."""
MANY_MEMBERS = 8
MANY_ENDPOINTS = 50
MAX_FLOWS = 64
"""Flows of a pool that are named in a claim, shared by the replicas that live."""
LEAST_FLOWS = 4
MAX_CHARGES = 64
MAX_LEFT = 10_000
"""Endpoints that were left whose totals are remembered, should they be back before the store has forgotten them."""


class InFlight(Protocol):
    """The part of an endpoint's condition that is looked at here."""

    in_flight: int
    may_serve: Callable[[float], bool]


class LeasedEndpoint(Protocol):
    """An endpoint as its pool has it; `stated` is the limit over all replicas, None for any number; `guessed` if that moves."""

    @property
    def address(self) -> str: ...  # noqa: D102
    @property
    def lease(self) -> "EndpointLease | None": ...  # noqa: D102
    @property
    def stated(self) -> int | None: ...  # noqa: D102
    @property
    def guessed(self) -> bool: ...  # noqa: D102


class Waiting(Protocol):
    """The calls of a pool: what waits and runs, and what was served."""

    def flows(self, now: float) -> list[Flow]:
        """All flows, those that go first at the beginning."""
        ...

    def served(self) -> "Served":
        """What was served since this was asked last."""
        ...

    def charge_others(self, key: str, amount: float) -> None:
        """Another replica has served so many weighted tokens of this flow."""
        ...

    def dispatch(self) -> None:
        """There may be more free slots."""
        ...


class Cancellable(Protocol):
    """Something that is to happen later."""

    def cancel(self) -> None:
        """Let it not happen."""


Later = Callable[[float, Callable[[], None]], Cancellable]


@dataclass(frozen=True, slots=True)
class Served:
    """Weighted tokens by flow, tokens and calls."""

    charges: tuple[tuple[str, float], ...] = ()
    tokens: float = 0.0
    calls: int = 0


class EndpointLease:
    """What this replica holds of one endpoint: `limit` attempts may be under way. `elsewhere` are those of other replicas."""

    __slots__ = ("__weakref__", "address", "cap", "condition", "elsewhere", "endpoint", "granted", "kept", "limit", "returned")

    def __init__(self, address: str, condition: InFlight) -> None:
        self.address = address
        self.condition = condition
        self.endpoint: LeasedEndpoint | None = None  # None once the pool has left it
        self.limit = 0
        self.elsewhere = 0
        self.kept = self.granted = self.returned = 0  # totals, since the store began to count
        self.cap: int | None = None

    @property
    def in_flight(self) -> int:
        """Attempts under way there, of all replicas."""
        return self.condition.in_flight + self.elsewhere

    @property
    def stated(self) -> int:
        """The limit over all replicas; 0 for any number, or when the endpoint has been left."""
        return (self.endpoint.stated or ANY_NUMBER) if self.endpoint is not None else ANY_NUMBER

    def give(self, number: int) -> None:
        """Give back so many slots that are free, or about to be."""
        self.limit -= number
        self.returned += number

    def claim(self, now: float) -> EndpointClaim:
        """What the store is to know."""
        endpoint, condition = self.endpoint, self.condition
        usable = endpoint is not None and condition.may_serve(now)
        guessed = endpoint is not None and endpoint.guessed
        return EndpointClaim(self.address, self.stated, guessed, self.kept, self.returned, condition.in_flight, usable)


class PoolLease:
    """What this replica holds of the endpoints of one pool. `moved` is called when these are others."""

    def __init__(self, name: str, nudge: Callable[[], None], moved: Callable[[], None]) -> None:
        self.name = name
        self.surplus = 0  # slots to be given back as they come free
        self.leases: dict[str, EndpointLease] = {}
        self.due = True  # the claim is to be made again though it has not changed
        self.urgent = False  # calls wait for the claim
        self.left = 0.0  # seconds until the claim may be made that is urgent
        self._nudge = nudge
        self._moved = moved
        self._left: dict[str, int] = {}  # of endpoints that were left: how many slots were granted and returned in all
        self._calls: Waiting | None = None
        self._said: PoolClaim | None = None
        self._said_at = -inf
        self._batch = 0
        self._unheard = Served()  # the batch that is said until it was heard
        self._known: dict[str, float] = {}  # of flows: what all replicas had served, as heard last

    def serve(self, calls: Waiting) -> None:
        """Lease for these calls."""
        self._calls = calls

    def follow(self, endpoints: Sequence[LeasedEndpoint]) -> None:
        """The pool's endpoints are these; what is held of others is given back when their attempts have ended."""
        for lease in self.leases.values():
            lease.endpoint = None
        for endpoint in endpoints:
            held = endpoint.lease
            if held is None:
                continue
            if self.leases.get(endpoint.address) is not held:
                self.leases[endpoint.address] = held
                held.kept = held.granted = held.returned = self._left.pop(endpoint.address, 0)
            held.endpoint = endpoint
        self.due = True
        self._nudge()
        self._moved()

    # -- what calls do

    def waits(self, level: int, top: int) -> None:
        """A call of this level is about to wait, `top` being the highest that waits: the store hears at once if it is above."""
        if level > top:
            self.surplus = 0  # what is free from here on is for this call, until the store says otherwise
            self.urgent = True
            self._nudge()

    def releases(self, lease: EndpointLease) -> None:
        """An attempt's slot is about to come free: it goes back where others lack it."""
        if (self.surplus > 0 or (lease.cap is not None and lease.limit > lease.cap)) and lease.limit > 0:
            self.surplus -= 1
            lease.give(1)
            self.urgent = True
            self._nudge()

    # -- what the store hears and says

    def claim(self, members: int, now: float) -> PoolClaim | None:
        """What is to be said now; None when it was said, or something was just before."""
        size = max(1.0, members / MANY_MEMBERS, len(self.leases) / MANY_ENDPOINTS)
        hurry = self.urgent or self.due or size == 1.0  # where it is little to look at, each exchange has the claim
        self.left = max(0.0, self._said_at + GAP_SECONDS * size * (URGENT if hurry else 1.0) - now)
        if self.left > SLACK_SECONDS:
            self.left = self.left if hurry and self.urgent else 0.0
            return None
        self.left, self.urgent = 0.0, False
        calls = self._calls
        flows = [] if calls is None else calls.flows(now)
        for lease in self.leases.values():
            self._give_idle(lease, now)
        if calls is not None and not (self._unheard.charges or self._unheard.calls):
            self._unheard, self._batch = calls.served(), self._batch + 1
        served = self._unheard
        batch = self._batch if served.charges or served.calls else 0
        endpoints = tuple(lease.claim(now) for lease in self.leases.values())
        most = max(LEAST_FLOWS, MAX_FLOWS // max(1, members))
        claim = PoolClaim(self.name, endpoints, fewer(flows, most), batch, served.charges, served.tokens, served.calls)
        if claim == self._said and not self.due and now - self._said_at < REPEAT_SECONDS:
            return None
        self._said, self._said_at, self.due = claim, now, True  # due until it was heard
        return claim

    def hear(self, grant: PoolGrant, now: float) -> None:
        """Take the answer in."""
        self.due = False
        before = {lease.address: (lease.limit, lease.stated) for lease in self.leases.values()}
        for each in grant.endpoints:
            if (lease := self.leases.get(each.address)) is not None:
                _take(lease, each)
        calls, own = self._calls, dict(self._unheard.charges)
        self._unheard = Served()
        for key, total in grant.served:
            others = total - self._known[key] - own.get(key, 0.0) if key in self._known else 0.0
            if others > 0 and calls is not None:
                calls.charge_others(key, others)
        self._known = dict(grant.served)
        self.surplus = max(0, sum(lease.limit for lease in self.leases.values()) - grant.target)
        given = self._give_surplus(now)
        for address, lease in list(self.leases.items()):
            if lease.endpoint is None and not lease.limit and not lease.condition.in_flight and before[address] == (0, 0):
                del self.leases[address]
                self._left[address] = lease.returned
                if len(self._left) > MAX_LEFT:
                    del self._left[next(iter(self._left))]
        if given and grant.wanted:
            self.urgent = True
            self._nudge()
        if calls is not None and any(lease.limit > before[address][0] for address, lease in self.leases.items()):
            calls.dispatch()

    def keep(self, rank: int) -> None:
        """Go on with what is held, of the whole pool one slot at least."""
        self.surplus = 0
        leases = [lease for _, lease in sorted(self.leases.items()) if lease.stated]
        for lease in leases:
            lease.cap = None
        if leases and not any(lease.limit for lease in leases):
            leases[rank % len(leases)].limit = 1
        if self._calls is not None:
            self._calls.dispatch()

    def alone(self, rank: int, members: int) -> None:
        """Hold each slot of the pool whose number, divided by the members, leaves the rank."""
        self.surplus, first, sum_ = 0, 0, 0
        leases = [lease for _, lease in sorted(self.leases.items())]
        for lease in leases:
            lease.cap, stated = None, lease.stated
            lease.elsewhere = 0
            lease.limit = (stated - (rank - first) % members + members - 1) // members if stated else 0
            first += stated
            sum_ += lease.limit
        limited = [lease for lease in leases if lease.stated]
        if limited and not sum_:
            limited[rank % len(limited)].limit = 1
        if self._calls is not None:
            self._calls.dispatch()

    def together(self, *, fresh: bool) -> None:
        """Hold what the store has granted; where it has forgotten that, what is in use."""
        self.surplus, self._known, self.due = 0, {}, True
        if fresh:
            self._left.clear()
        for lease in self.leases.values():
            lease.cap = None
            if fresh:
                lease.kept = lease.granted = lease.condition.in_flight if lease.stated else 0
                lease.returned = 0
            lease.limit = max(0, lease.granted - lease.returned)

    def _give_surplus(self, now: float) -> int:
        """Give back what is free of the surplus, first where most is; gives how many."""
        given = sum(self._give_idle(lease, now) for lease in self.leases.values())
        self.surplus = max(0, self.surplus - given)
        for lease in sorted(self.leases.values(), key=lambda each: each.condition.in_flight - each.limit):
            number = min(self.surplus, max(0, lease.limit - lease.condition.in_flight))
            if number > 0:
                lease.give(number)
                self.surplus -= number
                given += number
        return given

    @staticmethod
    def _give_idle(lease: EndpointLease, now: float) -> int:
        """Give back what is of no use here: slots of an endpoint that takes no calls, or beyond its cap."""
        idle = lease.limit - lease.condition.in_flight
        if lease.stated and lease.condition.may_serve(now):
            idle = 0 if lease.cap is None else min(idle, lease.limit - lease.cap)
        if idle > 0:
            lease.give(idle)
        return max(0, idle)


class SlotLeases:
    """What this replica holds of all pools: a participant in the exchanges with the store.

    `nudge` asks for an exchange at once, and `later` calls a function after so many seconds, unless its result is cancelled.
    """

    program = "slots"

    def __init__(self, nudge: Callable[[], None], later: Later) -> None:
        self._nudge = nudge
        self._later = later
        self._pools: dict[str, PoolLease] = {}
        self._leases: WeakValueDictionary[tuple[str, str], EndpointLease] = WeakValueDictionary()
        self._there: frozenset[str] = frozenset()  # pools of the configuration, also those without endpoints now
        self._leaving: list[str] = []  # pools that the last ask has left
        self._rank, self._members = 0, 1
        self._heard_at = -inf
        self._kept: Cancellable | None = None  # until what is held is the store's no more
        self._again: Cancellable | None = None  # an urgent claim that had to wait for its gap
        self._alone = True

    def pool(self, name: str) -> PoolLease:
        """The lease of a pool."""
        return self._pools.get(name) or PoolLease(name, self._nudge, self._go_on_alone)

    def endpoint(self, pool: str, address: str, condition: InFlight) -> EndpointLease:
        """The lease of an endpoint, the same for as long as any of its attempts runs."""
        lease = self._leases.get((pool, address))
        if lease is None:
            lease = self._leases[pool, address] = EndpointLease(address, condition)
        return lease

    def follow(self, pools: Iterable[PoolLease]) -> None:
        """These are the pools from now on; what is held of others is given back."""
        there = {pool.name: pool for pool in pools}
        for name, pool in self._pools.items():
            if name not in there:
                pool.follow(())
        self._pools |= there
        self._there = frozenset(there)
        self._go_on_alone()

    def ask(self, now: float) -> SlotsAsk:
        """What is to be said; also nothing, for the answer may name pools to be looked at."""
        claims = [claim for pool in self._pools.values() if (claim := pool.claim(self._members, now)) is not None]
        left = max((pool.left for pool in self._pools.values()), default=0.0)
        if left and self._again is None:
            self._again = self._later(left, self._ask_again)
        self._leaving = [claim.name for claim in claims if not claim.endpoints and claim.name not in self._there]
        return SlotsAsk(tuple(claims))

    def _ask_again(self) -> None:
        self._again = None
        self._nudge()

    def hear(self, answer: SlotsAnswer, now: float) -> None:
        """Take the grants."""
        self._rank, self._members, self._heard_at = answer.rank, answer.members, now
        for name in self._leaving:
            if name in self._pools and not self._pools[name].leases:
                del self._pools[name]
        for grant in answer.pools:
            if (pool := self._pools.get(grant.name)) is not None:
                pool.hear(grant, now)
        for name in answer.look:
            if (pool := self._pools.get(name)) is not None:
                pool.due = True
                self._nudge()

    def alone(self, share: float, now: float) -> None:
        """Go on with what is held, and then with a share of each pool."""
        self._alone, self._members = True, max(1, round(1 / share))
        left = self._heard_at + TTL_SECONDS - now
        if left > 0:
            self._kept = self._later(left, self._end_of_lease)
        self._go_on_alone()

    def together(self, now: float, *, fresh: bool) -> None:
        """Hold what the store grants."""
        self._alone = False
        if self._kept is not None:
            self._kept.cancel()
            self._kept = None
        for pool in self._pools.values():
            pool.together(fresh=fresh)

    def _end_of_lease(self) -> None:
        self._kept = None
        self._go_on_alone()

    def _go_on_alone(self) -> None:
        """Without the store: let each pool go on with what it has by now."""
        for pool in self._pools.values() if self._alone else ():
            if self._kept is not None:
                pool.keep(self._rank)
            else:
                pool.alone(self._rank % self._members, self._members)


def fewer(flows: Sequence[Flow], most: int) -> tuple[Flow, ...]:
    """The first flows, and one without a key for what is left of each priority."""
    named = tuple(flow for flow in flows[:most] if flow.key)
    rest: dict[int, Flow] = {}
    for flow in (*(flow for flow in flows[:most] if not flow.key), *flows[most:]):
        known = rest.get(flow.priority, Flow("", flow.priority, flow.priority, 0.0, 0, 0))
        rest[flow.priority] = Flow(
            "",
            flow.priority,
            max(known.level, flow.level),
            known.weight + flow.weight,
            known.waiting + flow.waiting,
            known.running + flow.running,
        )
    return (*named, *rest.values())


def _take(lease: EndpointLease, grant: EndpointGrant) -> None:
    lease.granted, lease.elsewhere = max(lease.granted, grant.granted), grant.elsewhere
    lease.limit = max(0, lease.granted - lease.returned)
    lease.cap = None if grant.cap == NO_CAP else grant.cap
