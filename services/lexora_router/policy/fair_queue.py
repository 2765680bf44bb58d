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

from itertools import count
from math import ceil
from typing import Generic, TypeVar

from lexora_contract.priority import CLASS, HIGH, LOW
from lexora_router.policy.fair_band import Band, TenantFlow, Ticket

T = TypeVar("T")


class FairQueue(Generic[T]):
    """A queue of tickets, in the order that this module's description gives; its owner bounds how many wait.

    `aging` is in seconds, above 0; infinity turns ageing off. For at most `max_idle`
    tenants of each priority that wait for nothing the counter is remembered. Every method is O(log n) in the tickets that
    wait, but for the two estimates and `place`; `now` is in seconds and must not go back. Work-conserving: while any waits,
    `pop` gives one.
    """

    def __init__(self, *, aging: float, max_idle: int = 512) -> None:
        if max_idle < 1 or not aging > 0:
            raise ValueError("max_idle must be at least 1, aging above 0")
        self.aging = aging
        self._max_idle = max_idle
        self.size = 0  # tickets that wait
        self._bands: dict[int, Band[T]] = {}  # at most 101
        self._front = 0.0  # lifted counter of the last flow served

    def __len__(self) -> int:
        return self.size

    def __contains__(self, ticket: Ticket[T]) -> bool:
        band = self._bands.get(ticket.priority)
        return band is not None and ticket in band.waiting

    def push(self, ticket: Ticket[T], now: float) -> None:
        """Let it wait. Raises ValueError for a ticket out of range or one that waits already."""
        if not LOW <= ticket.priority <= HIGH or not ticket.cost >= 0 or not ticket.weight > 0:
            raise ValueError("a ticket has a priority from 0 to 100, a cost of at least 0 and a weight above 0")
        if ticket in self:
            raise ValueError("the ticket waits already")
        ticket.arrived = now
        ticket.share = ticket.weight
        self._band(ticket.priority).push(ticket)
        self.size += 1

    def remove(self, ticket: Ticket[T]) -> bool:
        """Take it out; False when it does not wait (any more)."""
        if ticket not in self:
            return False
        self._bands[ticket.priority].remove(ticket)
        self.size -= 1
        return True

    def pop(self, now: float) -> Ticket[T] | None:
        """The next to be served, its input already charged; None when nothing waits."""
        if not self.size:
            return None
        tied = self._top(now)
        chosen = min(tied, key=lambda band: (band.key(), -band.priority))
        self._front = max(self._front, chosen.key())
        self.size -= 1
        # A tenant's flows at one level divide its weight, or it could gain shares by spreading its calls over priorities.
        parts = 1
        if len(tied) > 1:
            tenant = chosen.next_tenant()
            parts = sum(band.waits(tenant) for band in tied)
        return chosen.pop(parts)

    def serve(self, ticket: Ticket[T]) -> None:
        """Count a ticket that goes at once, because nothing waits: what a tenant had to itself is not held against it later."""
        assert not self.size
        ticket.share = ticket.weight
        band = self._bands.get(ticket.priority) or self._band(ticket.priority)
        self._front = max(self._front, band.lift + band.serve(ticket))

    def charge(self, ticket: Ticket[T], tokens: float) -> None:
        """Charge a dispatched call for `tokens` more than it was charged so far; what was too much, below 0, comes back."""
        band = self._bands.get(ticket.priority) or self._band(ticket.priority)
        band.charge(ticket.tenant, tokens / ticket.share)
        if tokens < 0 and band.active:
            self._front = min(self._front, band.key())  # or the next look would take the band for one that was held back

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

        Exact, and changes nothing, for it serves a copy: O(n log n) in the tickets that wait.
        """
        trial: FairQueue[T] = FairQueue(aging=self.aging, max_idle=self._max_idle)
        own = ticket.priority
        trial._bands = {p: band.twin(ticket.tenant) for p, band in self._bands.items() if band.waiting or p == own}
        trial.size, trial._front = self.size, self._front
        new = ticket.twin()
        trial.push(new, now)
        return next(ahead for ahead in count() if trial.pop(now) is new)

    def _before(self, level: int, own: TenantFlow[T] | None, turn: int, weight: float, now: float) -> int:
        """Tickets before the one that has `turn` others of its own flow before it."""
        before = turn
        for band in self._bands.values():
            if not band.waiting:
                continue
            theirs = self._level(band, now)
            if theirs > level:
                before += len(band.waiting)
            elif theirs == level:
                rounds = (turn + 1) / weight
                before += sum(min(len(flow.waiting), ceil(rounds * flow.weight)) for flow in band if flow is not own)
        return before

    def _top(self, now: float) -> list[Band[T]]:
        """The bands of the highest level, lifted to where the last one served stood. Something must wait."""
        levels = [(self._level(band, now), band) for band in self._bands.values() if band.waiting]
        top = max(level for level, _ in levels)
        tied = [band for level, band in levels if level == top]
        for band in tied:
            behind = self._front - band.key()
            if behind > 0:  # it was held back, or away: that earns nothing
                band.lift += behind
        return tied

    def _level(self, band: Band[T], now: float) -> int:
        """Effective priority of a band in which something waits."""
        oldest = next(iter(band.waiting))
        return min(HIGH, band.priority + CLASS * int(max(0.0, now - oldest.arrived) / self.aging))

    def _band(self, priority: int) -> Band[T]:
        band = self._bands.get(priority)
        if band is None:
            band = self._bands[priority] = Band(priority, self._max_idle)
        return band
