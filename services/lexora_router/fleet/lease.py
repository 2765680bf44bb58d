"""A call's place in a pool: the slot of its attempt, and what its attempts say of their endpoints and of its request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from lexora_router.call import Call, Outcome
from lexora_router.errors import UpstreamFailure
from lexora_router.fleet.bad_requests import BadRequests
from lexora_router.fleet.blame import Blame
from lexora_router.fleet.counters import Tally
from lexora_router.fleet.endpoint import HttpEndpoint
from lexora_router.fleet.outliers import Outliers
from lexora_router.fleet.shares import FairShares
from lexora_router.fleet.slots import Slot, Slots
from lexora_router.fleet.waiting import QueueTicket, WaitingCalls
from lexora_router.policy.usual_time import UsualTime

# How long a call whose failure named no time waits for an endpoint that has not failed it, before one that has will do.
REST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class PoolParts:
    """What the leases of one pool stand on. `running` are the calls that hold a slot."""

    slots: Slots
    waiting: WaitingCalls
    shares: FairShares
    outliers: Outliers
    bad_requests: BadRequests
    clock: Callable[[], float]
    running: set[SlotLease]
    tally: Tally = field(default_factory=Tally)


class SlotLease:
    """One call's place in a pool; `close` it in any case."""

    __slots__ = (
        "_began",
        "_blame",
        "_company",
        "_heard",
        "_parts",
        "_rest",
        "_slot",
        "_token_seen",
        "_usual",
        "bound",
        "call",
        "charged",
        "ticket",
        "tried",
    )

    def __init__(self, parts: PoolParts, call: Call, ticket: QueueTicket) -> None:
        self._parts = parts
        self._slot: Slot | None = None
        self._began: float | None = None  # when the attempt in this slot began
        self.bound = inf  # seconds after which a unary attempt is overdue
        self._usual: UsualTime | None = None  # of such unary answers
        self._company = 0  # attempts under way then at its endpoint, itself included
        self._token_seen = False  # the attempt's first token is here
        self._heard = 0  # events at the last look
        self._rest = REST_SECONDS
        self._blame: Blame | None = None  # a fingerprint costs time, and is taken when it is needed
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
        """When the attempt began, if it is a stream that has had no token yet, or a unary call that is overdue."""
        return self._began if not self._token_seen and (self.call.stream or self.overdue) else None

    @property
    def overdue(self) -> bool:
        """Whether a unary answer takes several times as long as those of its kind, and longer than a silence may."""
        if self._began is None or self._token_seen or self.bound == inf:
            return False
        return self._parts.clock() - self._began > self.bound

    def gone_silent(self) -> bool:
        """Whether the attempt's endpoint has gone silent, while another one, which was not tried, has answered since it began.

        Where all are silent, calls have become slower. Never for a second attempt: a call loses one to a false alarm at most.
        """
        slot, began = self._slot, self._began
        if slot is None or began is None or slot.endpoint.address not in self._parts.outliers.gone_silent:
            return False
        if not self.overdue or self.call.receipt.attempts > 1:
            return False
        return any(other.condition.heard_at > began for other in self._untried())

    def hears(self) -> bool:
        """Whether something has come since this was asked last."""
        heard, self._heard = self._heard, self.call.receipt.events
        return self._heard > heard

    def acquire(self) -> bool:
        """Take a first slot if there is a free one; else `wait` for it. Raises RequestQuarantined."""
        parts, came = self._parts, self._parts.clock()
        if len(self.call.body) in parts.bad_requests.sizes:
            blame = self._on_record()
            parts.bad_requests.refuse(self.call, blame.source.request, came)
            blame.permit = parts.bad_requests.begin(blame.source.request, came)
        if parts.slots.out_on_thin_evidence:
            parts.slots.give_way(self._on_record().source, came)
        self._slot = parts.waiting.at_once(self.ticket, came)
        if self._slot is None:
            return False
        parts.tally.waits.counts[0] += 1
        parts.running.add(self)
        return True

    async def wait(self) -> None:
        """Wait for the first slot. Raises QueueFull, or NoHealthyEndpoint when every breaker is open."""
        parts, came = self._parts, self._parts.clock()
        self._slot = await parts.waiting.in_turn(self.call, self.ticket)
        parts.tally.waits.add(parts.clock() - came)
        parts.running.add(self)

    async def next(self) -> HttpEndpoint:
        """Endpoint of the next attempt; see call.Lease."""
        parts = self._parts
        if self._slot is None or self._began is not None:
            self.pause()
            rest, self._rest = self._rest, REST_SECONDS
            self._slot = await parts.waiting.again(self.tried, rest)
        self._began = parts.clock()
        self._token_seen = False
        if not self.call.stream:
            self._usual = usual = parts.outliers.usual_time(self.call)
            self.bound = max(parts.outliers.max_silence, usual.bound)
        endpoint = self._slot.endpoint
        self._company = endpoint.condition.in_flight
        self.tried.add(endpoint.address)
        return endpoint

    def has_untried(self) -> bool:
        """Whether another attempt could go to an endpoint that has not been tried since the last one that answered."""
        return bool(self._untried())

    def has_sound(self) -> bool:
        """Whether one of these answers nearly all that it is asked."""
        now = self._parts.clock()
        return any(endpoint.condition.sound(now) for endpoint in self._untried())

    def may_go_on(self) -> bool:
        """Whether the call may be tried again, by what has failed at it; see Blame."""
        return self._blame is None or self._blame.may_go_on()

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
        now, auto = self._parts.clock(), slot.endpoint.auto
        self._token_seen = True
        if began is not None and self._usual is not None:
            self._usual.add(now - began)
        slot.endpoint.condition.answered(slot.permit, now)
        if len(self.tried) > 1:
            self.tried = {slot.endpoint.address}  # those that failed before may be back when this one fails in its turn
        if self._blame is not None:
            self._blame.answered(slot, now)
        if auto is None or began is None:
            return
        if auto.answered(now - began, self._company, now, streamed=self.call.stream):
            self._parts.waiting.dispatch()  # the limit has grown

    def ended(self, outcome: Outcome, failure: UpstreamFailure | None = None) -> None:
        """The attempt is over; report it once."""
        slot, began = self._slot, self._began
        if slot is None:
            return
        now, auto = self._parts.clock(), slot.endpoint.auto
        if outcome is Outcome.FAULT and failure is not None and failure.sent:
            self._on_record().failed(slot, failure, now if began is None else began, now, heard=self._token_seen)
        else:
            slot.endpoint.condition.ended(slot.permit, outcome, now, self.ticket.tenant)
            if outcome is Outcome.GOOD:
                self._succeeded(slot, now)
        self._parts.tally.attempts[outcome] += 1
        if outcome is Outcome.BUSY and auto is not None and began is not None:
            auto.refused(began, now)

    def pause(self) -> None:
        """Give the slot back for now."""
        slot, self._slot = self._slot, None
        began, self._began = self._began, None
        if slot is not None:
            self._parts.waiting.release(slot, began)

    def close(self) -> None:
        """Give the slot back for good."""
        parts = self._parts
        try:
            if self._blame is not None:
                self._blame.left(parts.clock())
            parts.shares.settle(self)
        finally:
            parts.running.discard(self)
            slot, self._slot = self._slot, None
            if slot is not None:
                parts.waiting.release(slot, self._began)

    def _succeeded(self, slot: Slot, now: float) -> None:
        if self._blame is not None:
            self._blame.answered(slot, now)
        bad_requests = self._parts.bad_requests
        if len(self.call.body) in bad_requests.sizes:
            blame = self._on_record()
            bad_requests.quarantine.succeeded(blame.source.request, now, blame.permit)

    def _on_record(self) -> Blame:
        """The call's failures, from the first look at its request on."""
        if self._blame is None:
            self._blame = Blame(self.call, self._parts.slots, self._parts.bad_requests)
        return self._blame

    def _untried(self) -> list[HttpEndpoint]:
        return self._parts.slots.untried(self.tried, self._parts.clock())
