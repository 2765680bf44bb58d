"""The queue in front of a pool: priority first, fair shares within a priority, and nothing waits for ever.

A *flow* is one tenant's waiting calls of one priority, first in first out. Flows of one priority share by the Virtual Token
Counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024): each flow counts the tokens it was served
divided by its weight, input when a call is dispatched and output as it is generated, and the flow with the smallest counter
goes next. Input is an estimate until the engine has counted it; the difference is then charged, or given back.
A flow that comes back from idleness is lifted to the smallest counter of those that wait, or of the last one that
left, so silence earns no credit. While two flows wait, their counters never differ by more than the input of one call and the
output of the calls that run.

A priority gains one class (50 points, `low` to `normal` to `high`) per `aging` seconds that its oldest call has waited, up to
`high`. The priority with the highest level is served; those of equal level share, flow by flow, by the same counters. What
ages is the priority and not the single call, for otherwise the old calls of a long batch would outrank an interactive tenant's
fresh calls of the same priority, which is what the counters are there to prevent. Hence the bound: a call of priority p that
has waited `aging * ceil((100 - p) / 50)` seconds is in the top level until it is served; from then on its flow gets its full
share whatever else arrives: costs and weights being equal, each call before it in its own flow costs it one round of the flows.

Levels never earn credit either: a priority that was held back joins the others at their counter (`_front`), not at its own.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace
from math import ceil
from typing import Generic, TypeVar

from lexora_router.policy.priority import CLASS, HIGH, LOW

T = TypeVar("T")

_SLACK = 16
"""Stale entries that a heap may hold beyond as many as it has valid ones."""


class QueueFull(Exception):
    """As many calls wait as may."""


@dataclass(slots=True, eq=False)
class Ticket(Generic[T]):
    """A place in the queue.

    `priority` is 0 to 100, more is earlier; `cost` the estimated input in tokens; `weight` the tenant's share relative to
    others; `deadline` and `arrived` are instants in seconds. The queue sets `arrived`, and `share`, the weight that counts for
    what this call is charged. It never reads `item` and `deadline`: the owner removes the ticket when its deadline passes.
    """

    tenant: str
    priority: int
    cost: float
    item: T
    weight: float = 1.0
    deadline: float | None = None
    arrived: float = field(default=0.0, init=False)
    share: float = field(default=1.0, init=False)

    def twin(self) -> "Ticket[T]":
        """A copy."""
        copy = Ticket(self.tenant, self.priority, self.cost, self.item, self.weight, self.deadline)
        copy.arrived, copy.share = self.arrived, self.share
        return copy


class _Flow(Generic[T]):
    """One tenant's calls of one priority: those that wait, and the weighted tokens of those that were served."""

    __slots__ = ("counter", "order", "tenant", "waiting", "weight")

    def __init__(self, tenant: str, counter: float) -> None:
        self.tenant = tenant
        self.counter = counter
        self.weight = 1.0
        self.waiting: OrderedDict[Ticket[T], None] = OrderedDict()
        self.order = 0  # of its valid entry in the heap of its band; 0 while nothing waits

    def twin(self) -> "_Flow[T]":
        """A copy in which nothing waits yet."""
        flow: _Flow[T] = _Flow(self.tenant, self.counter)
        flow.weight, flow.order = self.weight, self.order
        return flow


class _Band(Generic[T]):
    """All calls of one priority, and the counters of its flows."""

    __slots__ = ("_flows", "_heap", "_idle", "_last", "_left", "_max_idle", "_order", "active", "lift", "priority", "waiting")

    def __init__(self, priority: int, max_idle: int) -> None:
        self.priority = priority
        self.waiting: OrderedDict[Ticket[T], None] = OrderedDict()  # oldest first
        self.active = 0  # flows that wait
        self.lift = 0.0  # added to the counters here when they are compared with those of other bands
        self._flows: dict[str, _Flow[T]] = {}
        self._idle: OrderedDict[str, _Flow[T]] = OrderedDict()  # served, and now waiting for nothing
        self._max_idle = max_idle
        self._heap: list[
            tuple[float, int, _Flow[T]]
        ] = []  # an entry's counter is a lower bound: one that falls gets a new entry
        self._order = 0  # makes equal counters first in first out
        self._last: _Flow[T] | None = None
        self._left = 0.0  # counter of the last flow that stopped waiting

    def __iter__(self) -> Iterator[_Flow[T]]:
        """The flows that wait."""
        return (flow for flow in self._flows.values() if flow.waiting)

    def flow(self, tenant: str) -> _Flow[T] | None:
        return self._flows.get(tenant)

    def push(self, ticket: Ticket[T]) -> None:
        flow = self._flows.get(ticket.tenant)
        if flow is None:
            flow = self._flows[ticket.tenant] = _Flow(ticket.tenant, 0.0)
        if not flow.waiting:
            flow.counter = max(flow.counter, self.floor())
            self._activate(flow)
        flow.weight = ticket.weight
        flow.waiting[ticket] = self.waiting[ticket] = None

    def remove(self, ticket: Ticket[T]) -> None:
        flow = self._flows[ticket.tenant]
        del flow.waiting[ticket], self.waiting[ticket]
        if not flow.waiting:
            self._deactivate(flow)

    def next_tenant(self) -> str:
        return self._least().tenant

    def waits(self, tenant: str) -> bool:
        flow = self._flows.get(tenant)
        return flow is not None and bool(flow.waiting)

    def pop(self, parts: int) -> Ticket[T]:
        """The next ticket, charged at 1/`parts` of its weight."""
        flow = self._least()
        ticket, _ = flow.waiting.popitem(last=False)
        del self.waiting[ticket]
        ticket.share = ticket.weight / parts
        flow.counter += ticket.cost / ticket.share
        self._last = flow
        if not flow.waiting:
            self._deactivate(flow)
        return ticket

    def serve(self, ticket: Ticket[T]) -> None:
        """Charge a ticket that never waited; its flow is the last one served, from which the others start."""
        flow = self._flows.get(ticket.tenant)
        if flow is None:
            flow = self._flows[ticket.tenant] = _Flow(ticket.tenant, 0.0)
        flow.counter = max(flow.counter, self.floor()) + ticket.cost / ticket.share
        self._last = flow
        self._rest(flow)

    def charge(self, tenant: str, amount: float) -> None:
        flow = self._flows.get(tenant)
        if amount < 0:
            if flow is not None:
                self._give_back(flow, amount)
        elif flow is not None:
            # One that waits for nothing is lifted first, as if it came back now: then it may be forgotten below the floor.
            flow.counter = (flow.counter if flow.waiting else max(flow.counter, self.floor())) + amount
        else:  # forgotten, so it stood at the floor
            flow = self._flows[tenant] = _Flow(tenant, self.floor() + amount)
            self._rest(flow)

    def _give_back(self, flow: _Flow[T], amount: float) -> None:
        flow.counter += amount
        if flow.waiting:
            self._enter(flow)
            self._compact()

    def key(self) -> float:
        """What is compared with other bands of the same level."""
        return self.lift + self.floor()

    def floor(self) -> float:
        """The counter below which nobody starts: the least of those that wait, else of those that did."""
        if self.active:
            return self._least().counter
        return max(self._left, self._last.counter) if self._last is not None else self._left

    def twin(self, tenant: str) -> "_Band[T]":
        """A copy to try things out with. Of the flows that wait for nothing it has this tenant's only."""
        band: _Band[T] = _Band(self.priority, self._max_idle)
        for flow in self._flows.values():
            if flow.waiting or flow.tenant == tenant:
                band._flows[flow.tenant] = flow.twin()
        for ticket in self.waiting:
            copy = ticket.twin()
            band._flows[ticket.tenant].waiting[copy] = band.waiting[copy] = None
        band._heap = [(counter, order, band._flows[flow.tenant]) for counter, order, flow in self._heap if order == flow.order]
        heapify(band._heap)
        band._last = None if self._last is None else band._flows.get(self._last.tenant) or self._last.twin()
        band.active, band.lift, band._order, band._left = self.active, self.lift, self._order, self._left
        return band

    def _least(self) -> _Flow[T]:
        """The flow that goes next. At least one must be active."""
        heap = self._heap
        while True:
            counter, order, flow = heap[0]
            if order != flow.order:
                heappop(heap)
            elif flow.counter > counter:
                heapreplace(heap, (flow.counter, order, flow))
            else:
                return flow

    def _activate(self, flow: _Flow[T]) -> None:
        self.active += 1
        self._idle.pop(flow.tenant, None)
        self._enter(flow)

    def _enter(self, flow: _Flow[T]) -> None:
        """Make an entry for the flow; one that it had is stale from here on."""
        self._order += 1
        flow.order = self._order
        heappush(self._heap, (flow.counter, flow.order, flow))

    def _compact(self) -> None:
        if len(self._heap) > 2 * self.active + _SLACK:
            self._heap = [entry for entry in self._heap if entry[1] == entry[2].order]
            heapify(self._heap)

    def _deactivate(self, flow: _Flow[T]) -> None:
        self.active -= 1
        flow.order = 0
        if not self.active:
            self._left = max(self._left, flow.counter)
        self._compact()
        self._rest(flow)

    def _rest(self, flow: _Flow[T]) -> None:
        """Remember an idle flow's counter, and forget others: not above the floor it means nothing, and there is a bound."""
        self._idle[flow.tenant] = flow
        floor = self.floor()
        for _ in range(2):  # one comes, up to two go: whatever is left over is met again
            tenant, oldest = next(iter(self._idle.items()))
            if oldest is not self._last and (oldest.counter <= floor or len(self._idle) > self._max_idle):
                del self._idle[tenant], self._flows[tenant]
                if not self._idle:
                    break
            else:
                self._idle.move_to_end(tenant)


class FairQueue(Generic[T]):
    """A bounded queue of tickets, in the order that this module's description gives.

    `max_size` tickets may wait, 0 for none. `aging` is in seconds, above 0; infinity turns ageing off. For at most `max_idle`
    tenants of each priority that wait for nothing the counter is remembered. Every method is O(log n) in the tickets that
    wait, but for the two estimates and `place`; `now` is in seconds and must not go back. Work-conserving: while any waits,
    `pop` gives one.
    """

    def __init__(self, *, max_size: int, aging: float, max_idle: int = 512) -> None:
        if max_size < 0 or max_idle < 1 or not aging > 0:
            raise ValueError("max_size must be at least 0, max_idle at least 1, aging above 0")
        self.max_size = max_size
        self.aging = aging
        self._max_idle = max_idle
        self._size = 0
        self._bands: dict[int, _Band[T]] = {}  # at most 101
        self._front = 0.0  # lifted counter of the last flow served

    def __len__(self) -> int:
        return self._size

    def __contains__(self, ticket: Ticket[T]) -> bool:
        band = self._bands.get(ticket.priority)
        return band is not None and ticket in band.waiting

    def push(self, ticket: Ticket[T], now: float) -> None:
        """Let it wait. Raises QueueFull, and ValueError for a ticket out of range or one that waits already."""
        if not LOW <= ticket.priority <= HIGH or not ticket.cost >= 0 or not ticket.weight > 0:
            raise ValueError("a ticket has a priority from 0 to 100, a cost of at least 0 and a weight above 0")
        if ticket in self:
            raise ValueError("the ticket waits already")
        if self._size >= self.max_size:
            raise QueueFull
        ticket.arrived = now
        ticket.share = ticket.weight
        self._band(ticket.priority).push(ticket)
        self._size += 1

    def remove(self, ticket: Ticket[T]) -> bool:
        """Take it out; False when it does not wait (any more)."""
        if ticket not in self:
            return False
        self._bands[ticket.priority].remove(ticket)
        self._size -= 1
        return True

    def pop(self, now: float) -> Ticket[T] | None:
        """The next to be served, its input already charged; None when nothing waits."""
        if not self._size:
            return None
        tied = self._top(now)
        chosen = min(tied, key=lambda band: (band.key(), -band.priority))
        self._front = max(self._front, chosen.key())
        self._size -= 1
        # A tenant's flows at one level divide its weight, or it could gain shares by spreading its calls over priorities.
        parts = 1
        if len(tied) > 1:
            tenant = chosen.next_tenant()
            parts = sum(band.waits(tenant) for band in tied)
        return chosen.pop(parts)

    def serve(self, ticket: Ticket[T]) -> None:
        """Count a ticket that goes at once, because nothing waits: what a tenant had to itself puts it behind nobody later."""
        assert not self._size
        ticket.share = ticket.weight
        band = self._band(ticket.priority)
        band.serve(ticket)
        self._front = max(self._front, band.key())

    def charge(self, ticket: Ticket[T], tokens: float) -> None:
        """Charge a dispatched call for `tokens` more than it was charged so far; what was too much, below 0, comes back."""
        band = self._band(ticket.priority)
        band.charge(ticket.tenant, tokens / ticket.share)
        if tokens < 0 and band.active:
            self._front = min(self._front, band.key())  # or the next look would take the band for one that was held back

    def position(self, ticket: Ticket[T], now: float) -> int:
        """How many would be served before this waiting ticket, by the estimate of `ahead`. Raises KeyError if it isn't here."""
        band = self._bands.get(ticket.priority)
        flow = band.flow(ticket.tenant) if band is not None else None
        if band is None or flow is None or ticket not in flow.waiting:
            raise KeyError(ticket)
        turn = next(index for index, waiting in enumerate(flow.waiting) if waiting is ticket)
        return self._before(self._level(band, now), flow, turn, ticket.weight, now)

    def ahead(self, priority: int, now: float, tenant: str = "", weight: float = 1.0) -> int:
        """How many would be served before a new ticket of this priority and tenant, as things stand.

        All of higher levels; of the same level the tenant's own, and of each other flow the turns it gets meanwhile. An
        estimate in calls: costs are taken as equal, and what arrives or ages later is left out. O(flows of the level).
        """
        band = self._bands.get(priority)
        level = self._level(band, now) if band is not None and band.waiting else priority
        flow = band.flow(tenant) if band is not None else None
        return self._before(level, flow, len(flow.waiting) if flow is not None else 0, weight, now)

    def place(self, ticket: Ticket[T], now: float) -> int:
        """How many would be popped before this new ticket if it came now, and nothing else came, left, aged or was charged.

        Exact, and changes nothing, for it serves a copy: O(n log n) in the tickets that wait. Looks at no bound on the size.
        """
        trial: FairQueue[T] = FairQueue(max_size=self._size + 1, aging=self.aging, max_idle=self._max_idle)
        own = ticket.priority
        trial._bands = {p: band.twin(ticket.tenant) for p, band in self._bands.items() if band.waiting or p == own}
        trial._size, trial._front = self._size, self._front
        new = ticket.twin()
        trial.push(new, now)
        return next(ahead for ahead in range(trial.max_size) if trial.pop(now) is new)

    def _before(self, level: int, own: _Flow[T] | None, turn: int, weight: float, now: float) -> int:
        """Tickets before the one that has `turn` others of its own flow before it."""
        count = turn
        for band in self._bands.values():
            if not band.waiting:
                continue
            theirs = self._level(band, now)
            if theirs > level:
                count += len(band.waiting)
            elif theirs == level:
                rounds = (turn + 1) / weight
                count += sum(min(len(flow.waiting), ceil(rounds * flow.weight)) for flow in band if flow is not own)
        return count

    def _top(self, now: float) -> list[_Band[T]]:
        """The bands of the highest level, lifted to where the last one served stood. Something must wait."""
        levels = [(self._level(band, now), band) for band in self._bands.values() if band.waiting]
        top = max(level for level, _ in levels)
        tied = [band for level, band in levels if level == top]
        for band in tied:
            behind = self._front - band.key()
            if behind > 0:  # it was held back, or away: that earns nothing
                band.lift += behind
        return tied

    def _level(self, band: _Band[T], now: float) -> int:
        """Effective priority of a band in which something waits."""
        oldest = next(iter(band.waiting))
        return min(HIGH, band.priority + CLASS * int(max(0.0, now - oldest.arrived) / self.aging))

    def _band(self, priority: int) -> _Band[T]:
        band = self._bands.get(priority)
        if band is None:
            band = self._bands[priority] = _Band(priority, self._max_idle)
        return band
