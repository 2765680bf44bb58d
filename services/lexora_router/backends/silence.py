"""Which endpoints have gone silent: streams wait there for their first token, and no call hears anything.

A frozen engine whose health check still answers shows in nothing else until the timeouts are over. A unary answer says nothing
before its end, so it does not count as a wait; a stream that comes to a slow client is no silence of the engine; and a few
streams may have long prompts, so it takes as many as there are failures to open a breaker.
"""

from collections.abc import Iterable
from typing import Protocol

from lexora_router.backends.condition import Condition
from lexora_router.backends.endpoint import HttpEndpoint


class Listener(Protocol):
    """A call at an endpoint."""

    @property
    def endpoint(self) -> HttpEndpoint | None:
        """Where the attempt under way is."""

    @property
    def waiting_since(self) -> float | None:
        """When the attempt began, if it is a stream that has had no token yet."""

    def hears(self) -> bool:
        """Whether something has come since this was asked last."""


def silences(listeners: Iterable[Listener], now: float) -> dict[str, float]:
    """Seconds of silence of each address where enough streams wait for their first tokens.

    By address, for after a reload the same engine is another object, and has calls of both.
    """
    waits: dict[str, list[float]] = {}
    conditions: dict[str, Condition] = {}
    for listener in listeners:
        endpoint, waiting = listener.endpoint, listener.waiting_since
        if endpoint is None:
            continue
        if listener.hears():
            endpoint.condition.heard_at = now
        if waiting is not None:
            waits.setdefault(endpoint.address, []).append(waiting)
            conditions[endpoint.address] = endpoint.condition
    return {
        address: now - max(min(since), conditions[address].heard_at)
        for address, since in waits.items()
        if len(since) >= conditions[address].failures_that_open
    }
