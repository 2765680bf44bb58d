"""Which endpoints have gone silent: calls wait there, and no call hears anything.

A frozen engine whose health check still answers shows in nothing else until the timeouts are over. Streams wait for their first
tokens; a few of them may have long prompts, so it takes as many as there are failures to open a breaker. A unary answer says
nothing before its end, so it counts as a wait only once it is overdue by what is usual for its kind; then two are enough, since
two calls that are several times too long at once, where nothing else is heard, are no chance. A stream that comes to a slow
client is no silence of the engine.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from lexora_router.fleet.endpoint import HttpEndpoint
from lexora_router.fleet.endpoint_health import Condition

# Overdue unary calls at one endpoint that are enough.
MIN_OVERDUE = 2


class Listener(Protocol):
    """A call at an endpoint."""

    @property
    def endpoint(self) -> HttpEndpoint | None:
        """Where the attempt under way is."""

    @property
    def waiting_since(self) -> float | None:
        """When the attempt began, if it is a stream that has had no token yet, or a unary call that is overdue."""

    @property
    def overdue(self) -> bool:
        """Whether it is a unary call that is overdue."""

    def hears(self) -> bool:
        """Whether something has come since this was asked last."""


def silences(listeners: Iterable[Listener], now: float) -> dict[str, float]:
    """Seconds of silence of each address where enough calls wait.

    By address, for after a reload the same engine is another object, and has calls of both.
    """
    waits: dict[str, list[float]] = {}
    overdue: Counter[str] = Counter()
    conditions: dict[str, Condition] = {}
    for listener in listeners:
        endpoint, waiting = listener.endpoint, listener.waiting_since
        if endpoint is None:
            continue
        if listener.hears():
            endpoint.condition.heard_at = now
        if waiting is not None:
            waits.setdefault(endpoint.address, []).append(waiting)
            overdue[endpoint.address] += listener.overdue
            conditions[endpoint.address] = endpoint.condition
    return {
        address: now - max(min(since), conditions[address].heard_at)
        for address, since in waits.items()
        if len(since) >= conditions[address].failures_that_open or overdue[address] >= MIN_OVERDUE
    }


def overdue_at(listeners: Iterable[Listener]) -> Counter[str]:
    """How many overdue unary calls each address has."""
    return Counter(listener.endpoint.address for listener in listeners if listener.overdue and listener.endpoint is not None)
