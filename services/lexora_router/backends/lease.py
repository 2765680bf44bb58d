"""A call's place in a pool: the slot of its attempt, and what its attempts tell of their endpoints."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lexora_router.backends.endpoint import HttpEndpoint
from lexora_router.handler import Call, Outcome
from lexora_router.policy.fair_queue import Ticket

if TYPE_CHECKING:
    from lexora_router.backends.pool import Pool

# How long a call that nobody told to rest waits for an endpoint that has not failed it, before one that has will do.
REST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Slot:
    """A place at an endpoint, and its breaker's permit: taken together, so that half-open one call is the trial."""

    endpoint: HttpEndpoint
    permit: int


Waiting = asyncio.Future[Slot]


class SlotLease:
    """One call's place in a pool; `close` it in any case."""

    __slots__ = ("_began", "_company", "_heard", "_pool", "_rest", "_slot", "_told", "call", "charged", "ticket", "tried")

    def __init__(self, pool: Pool, call: Call, ticket: Ticket[Waiting | None]) -> None:
        self._pool = pool
        self._slot: Slot | None = None
        self._began: float | None = None  # when the attempt in this slot began
        self._company = 0  # attempts under way then at its endpoint, itself included
        self._told = False  # the attempt's first token is here
        self._heard = 0  # events at the last look
        self._rest = REST_SECONDS
        self.call = call
        self.ticket = ticket
        self.charged = 0.0  # tokens in the fair shares, beside the ticket's cost
        self.tried: set[str] = set()  # addresses: after a reload the same engine is another object

    @property
    def endpoint(self) -> HttpEndpoint | None:
        """Where the attempt under way is."""
        return self._slot.endpoint if self._slot is not None and self._began is not None else None

    @property
    def waiting_since(self) -> float | None:
        """When the attempt began, if it is a stream that has had no token yet."""
        return self._began if self.call.stream and not self._told else None

    def hears(self) -> bool:
        """Whether something has come since this was asked last."""
        heard, self._heard = self._heard, self.call.receipt.events
        return self._heard > heard

    async def acquire(self) -> None:
        """Wait for the first slot."""
        self._slot = await self._pool.first(self)

    async def next(self) -> HttpEndpoint:
        """Endpoint of the next attempt; see handler.Lease."""
        if self._slot is None or self._began is not None:
            self.pause()
            rest, self._rest = self._rest, REST_SECONDS
            self._slot = await self._pool.again(self, rest)
        self._began = self._pool.now()
        self._told = False
        endpoint = self._slot.endpoint
        self._company = endpoint.in_flight
        self.tried.add(endpoint.address)
        return endpoint

    def has_untried(self) -> bool:
        """Whether another attempt could go to an endpoint that has not been tried since the last one that answered."""
        return bool(self._pool.untried(self.tried))

    def has_sound(self) -> bool:
        """Whether one of these answers nearly all that it is asked."""
        now = self._pool.now()
        return any(endpoint.condition.sound(now) for endpoint in self._pool.untried(self.tried))

    def rest(self, seconds: float) -> None:
        """Let the next attempt go to an endpoint that was tried only after so many seconds; inf: never."""
        self._rest = seconds

    def stay(self) -> None:
        """Let the next attempt be at the same endpoint, in the slot that is held."""
        self._began = None

    def answered(self) -> None:
        """The attempt's first token is here."""
        slot, began = self._slot, self._began
        if slot is None:
            return
        now, auto = self._pool.now(), slot.endpoint.auto
        self._told = True
        slot.endpoint.condition.answered(slot.permit, now)
        self.tried = {slot.endpoint.address}  # those that failed before may be back when this one fails in its turn
        if auto is None or began is None:
            return
        if auto.answered(now - began, self._company, now, streamed=self.call.stream):
            self._pool.dispatch()  # the limit has grown

    def ended(self, outcome: Outcome) -> None:
        """The attempt is over; tell it once."""
        slot, began = self._slot, self._began
        if slot is None:
            return
        now, auto = self._pool.now(), slot.endpoint.auto
        slot.endpoint.condition.ended(slot.permit, outcome, now)
        self._pool.tally.attempts[outcome] += 1
        if outcome is Outcome.BUSY and auto is not None and began is not None:
            auto.refused(began, now)

    def pause(self) -> None:
        """Give the slot back for now."""
        slot, self._slot = self._slot, None
        began, self._began = self._began, None
        if slot is not None:
            self._pool.release(slot, None if began is None else self._pool.now() - began)

    def close(self) -> None:
        """Give the slot back for good."""
        self._pool.done(self)
        self.pause()
