"""A fair queue that also counts what it serves, for the queues of other replicas."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, TypeVar

from lexora_router.policy.fair_band import Ticket
from lexora_router.policy.fair_queue import FairQueue

T = TypeVar("T")

MAX_COUNTED = 1024
"""Flows that are counted between two looks; of others nothing is said."""
MAX_LISTED = 256
"""Flows of a priority that are listed by name."""


class WaitingFlow(NamedTuple):
    """The tickets of a tenant that wait at one priority, which has reached a level by now. An empty tenant: several of them."""

    tenant: str
    priority: int
    level: int
    weight: float
    waiting: int


class CountedQueue(FairQueue[T]):
    """A fair queue whose service can be read, and into which the service of others is charged."""

    def __init__(self, *, aging: float, max_idle: int = 512) -> None:
        super().__init__(aging=aging, max_idle=max_idle)
        self._served: dict[tuple[int, str], float] = {}  # weighted tokens
        self._tokens = 0.0
        self._calls = 0

    def pop(self, now: float) -> Ticket[T] | None:
        """See FairQueue."""
        ticket = super().pop(now)
        if ticket is not None:
            self._calls += 1
            self._count(ticket, ticket.cost)
        return ticket

    def serve(self, ticket: Ticket[T]) -> None:
        """See FairQueue."""
        super().serve(ticket)
        self._calls += 1
        self._count(ticket, ticket.cost)

    def charge(self, ticket: Ticket[T], tokens: float) -> None:
        """See FairQueue."""
        super().charge(ticket, tokens)
        self._count(ticket, tokens)

    def charge_others(self, priority: int, tenant: str, amount: float) -> None:
        """Another queue has served so many weighted tokens of a flow, which may be unknown here."""
        band = self._bands.get(priority)
        if band is not None and band.flow(tenant) is not None:
            band.charge(tenant, amount)

    def take_served(self) -> tuple[dict[tuple[int, str], float], float, int]:
        """Weighted tokens by priority and tenant, tokens, and calls: served since this was called last."""
        served = self._served, self._tokens, self._calls
        self._served, self._tokens, self._calls = {}, 0.0, 0
        return served

    def top(self, now: float) -> int:
        """The highest level at which something waits; below all levels if nothing does."""
        return max((self._level(band, now) for band in self._bands.values() if band.waiting), default=-1)

    def flows(self, now: float) -> Iterator[WaitingFlow]:
        """What waits, the highest level first, and in a level those with the least counters."""
        bands = sorted(((self._level(band, now), band) for band in self._bands.values() if band.waiting), key=_by_level)
        for level, band in bands:
            named = list(islice(band, MAX_LISTED))
            named.sort(key=lambda flow: flow.counter)
            for flow in named:
                yield WaitingFlow(flow.tenant, band.priority, level, flow.weight, len(flow.waiting))
            rest = len(band.waiting) - sum(len(flow.waiting) for flow in named)
            if rest:
                yield WaitingFlow("", band.priority, level, float(band.active - len(named)), rest)

    def _count(self, ticket: Ticket[T], tokens: float) -> None:
        key = ticket.priority, ticket.tenant
        known = self._served.get(key)
        self._tokens += tokens
        if known is not None or len(self._served) < MAX_COUNTED:
            self._served[key] = (known or 0.0) + tokens / ticket.share


def _by_level(row: tuple[int, object]) -> int:
    return -row[0]
