"""A call's place in a pool: the slot of its attempt, and what its attempts tell of their endpoints and of its request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from lexora_router.call import Call, Outcome
from lexora_router.errors import UpstreamFailure, UpstreamTimeout
from lexora_router.fleet.endpoint import HttpEndpoint
from lexora_router.fleet.endpoint_health import Condition
from lexora_router.policy.evidence import Charge, Source
from lexora_router.policy.failures import is_fatal
from lexora_router.policy.fair_queue import Ticket
from lexora_router.policy.quarantine import fingerprint

if TYPE_CHECKING:
    from lexora_router.fleet.pool import Pool

# How long a call that nobody told to rest waits for an endpoint that has not failed it, before one that has will do.
REST_SECONDS = 1.0
# So many endpoints may fail at a call before its first token there: what breaks engines must not be given to each in turn.
# An endpoint that has given tokens and breaks then was well with the call; others may die at the same moment.
MAX_FAILED = 2


@dataclass(frozen=True, slots=True)
class Slot:
    """A place at an endpoint, and its breaker's permit: taken together, so that half-open one call is the trial."""

    endpoint: HttpEndpoint
    permit: int


Waiting = asyncio.Future[Slot]


def kind_of_call(call: Call) -> tuple[str, str, int]:
    """What unary calls that take about as long have in common."""
    most = -1 if call.max_tokens is None else call.max_tokens.bit_length()
    return call.path, call.target.model if call.target is not None else call.model, most


class SlotLease:
    """One call's place in a pool; `close` it in any case."""

    __slots__ = (
        "_began",
        "_bound",
        "_charges",
        "_company",
        "_failed_at",
        "_failed_early",
        "_heard",
        "_pool",
        "_rest",
        "_slot",
        "_source",
        "_told",
        "call",
        "charged",
        "permit",
        "ticket",
        "tried",
    )

    def __init__(self, pool: Pool, call: Call, ticket: Ticket[Waiting | None]) -> None:
        self._pool = pool
        self._slot: Slot | None = None
        self._began: float | None = None  # when the attempt in this slot began
        self._bound = inf  # seconds after which a unary attempt is overdue
        self._company = 0  # attempts under way then at its endpoint, itself included
        self._told = False  # the attempt's first token is here
        self._heard = 0  # events at the last look
        self._rest = REST_SECONDS
        self._source: Source | None = None  # a fingerprint costs time, and is taken when it is needed
        self._failed_at: list[Condition] = []  # endpoints that failed since the last token
        self._failed_early: list[Condition] = []  # those of them that had given no token
        self._charges: list[tuple[Condition, Charge]] = []
        self.call = call
        self.permit = 0  # of the request's own breaker, where it has one
        self.ticket = ticket
        self.charged = 0.0  # tokens in the fair shares, beside the ticket's cost
        self.tried: set[str] = set()  # addresses: after a reload the same engine is another object

    @property
    def endpoint(self) -> HttpEndpoint | None:
        """Where the attempt under way is."""
        return self._slot.endpoint if self._slot is not None and self._began is not None else None

    @property
    def waiting_since(self) -> float | None:
        """When the attempt began, if it is a stream that has had no token yet, or a unary call that is overdue."""
        return self._began if not self._told and (self.call.stream or self.overdue) else None

    @property
    def overdue(self) -> bool:
        """Whether a unary answer takes several times as long as those of its kind, and longer than a silence may."""
        if self._began is None or self._told or self._bound == inf:
            return False
        return self._pool.now() - self._began > self._bound

    @property
    def bound(self) -> float:
        """Seconds after which the attempt is overdue; inf for a stream, and where too little is known."""
        return self._bound

    def gone_silent(self) -> bool:
        """Whether the attempt's endpoint has gone silent, while another one, which was not tried, has answered since it began.

        Where all are silent, calls have become slower. Never for a second attempt: a call loses one to a false alarm at most.
        """
        slot, began = self._slot, self._began
        if slot is None or began is None or slot.endpoint.address not in self._pool.gone_silent:
            return False
        if not self.overdue or self.call.receipt.attempts > 1:
            return False
        return any(other.condition.heard_at > began for other in self._pool.untried(self.tried))

    def hears(self) -> bool:
        """Whether something has come since this was asked last."""
        heard, self._heard = self._heard, self.call.receipt.events
        return self._heard > heard

    @property
    def source(self) -> Source:
        """The call's tenant and the fingerprint of its request."""
        if self._source is None:
            self._source = Source(self.call.tenant, fingerprint(self.call.path, self.call.body))
        return self._source

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
        self._bound = inf if self.call.stream else self._pool.overdue_after(self.call)
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

    def may_go_on(self) -> bool:
        """Whether the call may be tried again: one that two endpoints have failed at, without a token, gets no third."""
        if not self._failed_at:
            return True
        return len(self._failed_early) < MAX_FAILED and not self._pool.quarantine.suspects(self.source.request)

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
        if began is not None and not self.call.stream:
            self._pool.usual.add(kind_of_call(self.call), now - began)
        slot.endpoint.condition.answered(slot.permit, now)
        self.tried = {slot.endpoint.address}  # those that failed before may be back when this one fails in its turn
        if self._failed_at:
            self._confirm(now)
        if auto is None or began is None:
            return
        if auto.answered(now - began, self._company, now, streamed=self.call.stream):
            self._pool.dispatch()  # the limit has grown

    def ended(self, outcome: Outcome, failure: UpstreamFailure | None = None) -> None:
        """The attempt is over; tell it once."""
        slot, began = self._slot, self._began
        if slot is None:
            return
        now, auto = self._pool.now(), slot.endpoint.auto
        if outcome is Outcome.FAULT and failure is not None and failure.sent:
            self._failed(slot, failure, now)
        else:
            slot.endpoint.condition.ended(slot.permit, outcome, now, self.call.tenant)
            if outcome is Outcome.GOOD:
                self._succeeded(now)
        self._pool.tally.attempts[outcome] += 1
        if outcome is Outcome.BUSY and auto is not None and began is not None:
            auto.refused(began, now)

    def _failed(self, slot: Slot, failure: UpstreamFailure, now: float) -> None:
        """An endpoint failed at the request: whose fault it is follows from where else it failed, and from what others got."""
        condition, others, pool = slot.endpoint.condition, self._failed_at, self._pool
        elsewhere = any(other is not condition and other.vouched for other in others)
        excused = elsewhere or _was_alive(condition, failure, now) or pool.quarantine.suspects(self.source.request)
        charge = condition.failed(slot.permit, now, self.source, excused=excused)
        if charge is not None and not excused and pool.quarantine.answered_lately(self.source.request):
            condition.confirm(charge, now)  # the same request has succeeded before
        elif charge is not None:
            self._charges.append((condition, charge))
        if condition not in others:
            others.append(condition)
        if not self._told and condition not in self._failed_early:
            self._failed_early.append(condition)
        if condition.vouched:
            for other, earlier in self._charges:
                if other is not condition:
                    other.excuse(earlier, now)
        began = now if self._began is None else self._began
        pool.blame(self, slot.endpoint, began, fatal=is_fatal(failure), heard=self._told)

    def _confirm(self, now: float) -> None:
        """Another endpoint has answered: those that failed were to blame."""
        last = self._slot.endpoint.condition if self._slot is not None else None
        for condition, charge in self._charges:
            if condition is not last:
                condition.confirm(charge, now)
        self._pool.note_thin_evidence(condition for condition, _ in self._charges)
        self._charges.clear()
        self._failed_at.clear()
        self._failed_early.clear()
        self._pool.quarantine.absolve(self.source.request, now)

    def _succeeded(self, now: float) -> None:
        """The call has ended well."""
        if self._failed_at:
            self._confirm(now)
        pool = self._pool
        if pool.quarantine.knows_size(len(self.call.body)):
            pool.quarantine.succeeded(self.source.request, now, self.permit)

    def pause(self) -> None:
        """Give the slot back for now."""
        slot, self._slot = self._slot, None
        began, self._began = self._began, None
        if slot is not None:
            self._pool.release(slot, None if began is None else self._pool.now() - began)

    def close(self) -> None:
        """Give the slot back for good."""
        if self.permit:
            self._pool.quarantine.left(self.source.request, self._pool.now(), self.permit)
        self._pool.done(self)
        self.pause()


def _was_alive(condition: Condition, failure: UpstreamFailure, now: float) -> bool:
    """Whether others were answered while this call waited in vain: then it was not the endpoint that was silent."""
    if not isinstance(failure, UpstreamTimeout):
        return False
    # What was heard may have been this call's own beginning.
    heard_at = condition.answered_at if failure.phase == "idle" else condition.heard_at
    return heard_at > now - failure.seconds / 2
