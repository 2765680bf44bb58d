"""The calls of one priority in a fair queue: one flow for each tenant, and the counters by which flows take turns."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic, TypeVar

T = TypeVar("T")

_SLACK = 16
"""Stale entries that a heap may hold beyond as many as it has valid ones."""


@dataclass(slots=True, eq=False)
class Ticket(Generic[T]):
    """A place in the queue.

    `priority` is 0 to 100, more is earlier; `cost` the estimated input in tokens; `weight` the tenant's share relative to
    others. The queue sets `arrived`, an instant in seconds, and `share`, the weight that counts for what this call is charged.
    It never reads `item`, which is the owner's.
    """

    tenant: str
    priority: int
    cost: float
    item: T
    weight: float = 1.0
    arrived: float = field(default=0.0, init=False)
    share: float = field(default=1.0, init=False)

    def twin(self) -> "Ticket[T]":
        """A copy."""
        copy = Ticket(self.tenant, self.priority, self.cost, self.item, self.weight)
        copy.arrived, copy.share = self.arrived, self.share
        return copy


class TenantFlow(Generic[T]):
    """One tenant's calls of one priority: those that wait, and the weighted tokens of those that were served."""

    __slots__ = ("counter", "order", "tenant", "waiting", "weight")

    def __init__(self, tenant: str, counter: float) -> None:
        self.tenant = tenant
        self.counter = counter
        self.weight = 1.0
        self.waiting: OrderedDict[Ticket[T], None] = OrderedDict()
        self.order = 0  # of its valid entry in the heap of its band; 0 while nothing waits

    def twin(self) -> "TenantFlow[T]":
        """A copy in which nothing waits yet."""
        flow: TenantFlow[T] = TenantFlow(self.tenant, self.counter)
        flow.weight, flow.order = self.weight, self.order
        return flow


class Band(Generic[T]):
    """All calls of one priority, and the counters of its flows."""

    __slots__ = ("_flows", "_heap", "_idle", "_last", "_left", "_max_idle", "_order", "active", "lift", "priority", "waiting")

    def __init__(self, priority: int, max_idle: int) -> None:
        self.priority = priority
        self.waiting: OrderedDict[Ticket[T], None] = OrderedDict()  # oldest first
        self.active = 0  # flows that wait
        self.lift = 0.0  # added to the counters here when they are compared with those of other bands
        self._flows: dict[str, TenantFlow[T]] = {}
        self._idle: OrderedDict[str, TenantFlow[T]] = OrderedDict()  # served, and now waiting for nothing
        self._max_idle = max_idle
        # An entry's counter is a lower bound: a flow whose counter falls gets a new entry.
        self._heap: list[tuple[float, int, TenantFlow[T]]] = []
        self._order = 0  # makes equal counters first in first out
        self._last: TenantFlow[T] | None = None
        self._left = 0.0  # counter of the last flow that stopped waiting

    def __iter__(self) -> Iterator[TenantFlow[T]]:
        """The flows that wait."""
        return (flow for flow in self._flows.values() if flow.waiting)

    def flow(self, tenant: str) -> TenantFlow[T] | None:
        """The tenant's flow, None when its counter has been forgotten."""
        return self._flows.get(tenant)

    def push(self, ticket: Ticket[T]) -> None:
        """Let it wait, at the end of its flow."""
        flow = self._flows.get(ticket.tenant)
        if flow is None:
            flow = self._flows[ticket.tenant] = TenantFlow(ticket.tenant, 0.0)
        if not flow.waiting:
            flow.counter = max(flow.counter, self.floor())
            self._activate(flow)
        flow.weight = ticket.weight
        flow.waiting[ticket] = self.waiting[ticket] = None

    def remove(self, ticket: Ticket[T]) -> None:
        """Take out a ticket that waits."""
        flow = self._flows[ticket.tenant]
        del flow.waiting[ticket], self.waiting[ticket]
        if not flow.waiting:
            self._deactivate(flow)

    def next_tenant(self) -> str:
        """The tenant of the flow that goes next; one must wait."""
        return self._least().tenant

    def waits(self, tenant: str) -> bool:
        """Whether the tenant has a call that waits here."""
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

    def serve(self, ticket: Ticket[T]) -> float:
        """Charge a ticket that never waited, while none waits; gives the counter of its flow: all start from there."""
        flow = self._last
        if flow is not None and flow.tenant == ticket.tenant:  # as mostly: it was served last, too
            flow.counter = max(flow.counter, self._left) + ticket.cost / ticket.share
            return flow.counter
        flow = self._flows.get(ticket.tenant)
        if flow is None:
            flow = self._flows[ticket.tenant] = TenantFlow(ticket.tenant, 0.0)
        flow.counter = max(flow.counter, self.floor()) + ticket.cost / ticket.share
        self._last = flow
        self._rest(flow)
        return flow.counter

    def charge(self, tenant: str, amount: float) -> None:
        """Add weighted tokens to the tenant's counter; below 0 they are given back."""
        flow = self._flows.get(tenant)
        if amount < 0:
            if flow is not None:
                self._give_back(flow, amount)
        elif flow is not None and flow is self._last and not self.active:
            flow.counter = max(flow.counter, self._left) + amount
        elif flow is not None:
            # One that waits for nothing is lifted first, as if it came back now: then it may be forgotten below the floor.
            flow.counter = (flow.counter if flow.waiting else max(flow.counter, self.floor())) + amount
        else:  # forgotten, so it stood at the floor
            flow = self._flows[tenant] = TenantFlow(tenant, self.floor() + amount)
            self._rest(flow)

    def _give_back(self, flow: TenantFlow[T], amount: float) -> None:
        flow.counter += amount
        if flow.waiting:
            self._enter(flow)
            self._compact()

    def key(self) -> float:
        """What is compared with other bands of the same level."""
        return self.lift + self.floor()

    def floor(self) -> float:
        """The counter below which no flow starts: the least of those that wait, else of those that did."""
        if self.active:
            return self._least().counter
        return max(self._left, self._last.counter) if self._last is not None else self._left

    def twin(self, tenant: str) -> "Band[T]":
        """A copy to try things out with. Of the flows that wait for nothing it has this tenant's only."""
        band: Band[T] = Band(self.priority, self._max_idle)
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

    def _least(self) -> TenantFlow[T]:
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

    def _activate(self, flow: TenantFlow[T]) -> None:
        self.active += 1
        self._idle.pop(flow.tenant, None)
        self._enter(flow)

    def _enter(self, flow: TenantFlow[T]) -> None:
        """Make an entry for the flow; one that it had is stale from here on."""
        self._order += 1
        flow.order = self._order
        heappush(self._heap, (flow.counter, flow.order, flow))

    def _compact(self) -> None:
        if len(self._heap) > 2 * self.active + _SLACK:
            self._heap = [entry for entry in self._heap if entry[1] == entry[2].order]
            heapify(self._heap)

    def _deactivate(self, flow: TenantFlow[T]) -> None:
        self.active -= 1
        flow.order = 0
        if not self.active:
            self._left = max(self._left, flow.counter)
        self._compact()
        self._rest(flow)

    def _rest(self, flow: TenantFlow[T]) -> None:
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
