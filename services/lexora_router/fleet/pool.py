"""The pool of one backend: interchangeable endpoints with one queue in front."""

from collections.abc import Callable, Sequence

from lexora_router.call import Call
from lexora_router.errors import NoHealthyEndpoint, QueueFull, RequestQuarantined
from lexora_router.fleet.bad_requests import BadRequests, source_of
from lexora_router.fleet.endpoint import HttpEndpoint
from lexora_router.fleet.forecast import Forecast
from lexora_router.fleet.lease import PoolParts, SlotLease
from lexora_router.fleet.outliers import Outliers
from lexora_router.fleet.shared_waiting import SharedWaiting, pick_by_sum
from lexora_router.fleet.shares import FairShares
from lexora_router.fleet.slots import Slots
from lexora_router.fleet.terms import Terms
from lexora_router.fleet.waiting import QueueLimits, Waiter, WaitingCalls
from lexora_router.leases.slots import PoolLease
from lexora_router.policy.counted_queue import CountedQueue
from lexora_router.policy.fair_queue import FairQueue
from lexora_router.policy.quarantine import Quarantine


class Pool:
    """Admits calls to the endpoints of one backend. A reload gives it other endpoints and limits; its calls stay."""

    def __init__(
        self,
        name: str,
        endpoints: Sequence[HttpEndpoint],
        terms: Terms,
        *,
        cost: Callable[[Call], float],
        randrange: Callable[[int], int],
        clock: Callable[[], float],
        lease: PoolLease | None = None,
    ) -> None:
        self.name = name
        self.lease = lease
        self.now = clock
        self.quarantine = Quarantine(terms.rules.breaker, most=terms.most_quarantined)
        running: set[SlotLease] = set()
        counted: CountedQueue[Waiter | None] = CountedQueue(aging=terms.limits.aging)
        queue: FairQueue[Waiter | None] = FairQueue(aging=terms.limits.aging) if lease is None else counted
        slots = Slots(name, endpoints, randrange) if lease is None else Slots(name, endpoints, randrange, pick_by_sum)
        slots.absence = terms.absence
        shares = FairShares(queue, running, standing=terms.standing, cost=cost)
        waiting = WaitingCalls(name, terms.limits, slots=slots, queue=queue, shares=shares, clock=clock)
        if lease is not None:
            waiting = SharedWaiting(
                name, terms.limits, slots=slots, queue=counted, shares=shares, clock=clock, lease=lease, running=running
            )
        self._parts = PoolParts(
            slots=slots,
            waiting=waiting,
            shares=shares,
            outliers=Outliers(slots, running, terms.ejection),
            bad_requests=BadRequests(name, slots, self.quarantine),
            clock=clock,
            running=running,
        )
        self.tally = self._parts.tally

    @property
    def endpoints(self) -> tuple[HttpEndpoint, ...]:
        """The endpoints that calls go to."""
        return self._parts.slots.endpoints

    @property
    def limits(self) -> QueueLimits:
        """How many calls may wait, and for how long."""
        return self._parts.waiting.limits

    @property
    def waiting(self) -> int:
        """Calls that wait for a slot."""
        return len(self._parts.waiting)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the bodies of calls that wait for their first slot."""
        return self._parts.waiting.bytes

    @property
    def running(self) -> int:
        """Calls that have been admitted and are not over, also between two attempts."""
        return len(self._parts.running)

    def follow(self, endpoints: Sequence[HttpEndpoint], terms: Terms) -> None:
        """Go on under other terms: calls that wait keep their places, others their slots until they end."""
        parts = self._parts
        parts.slots.endpoints = tuple(endpoints)
        parts.slots.absence = terms.absence
        if self.lease is not None:
            self.lease.follow(endpoints)
        parts.waiting.follow(terms.limits)
        parts.shares.standing = terms.standing
        parts.outliers.follow(terms.ejection)
        self.quarantine.follow(terms.rules.breaker, most=terms.most_quarantined)

    async def admit(self, call: Call) -> SlotLease:
        """Wait for a slot. Raises QueueFull, RequestQuarantined, or NoHealthyEndpoint when every breaker is open."""
        ticket = self._parts.shares.ticket(call)
        call.priority = ticket.priority
        lease = SlotLease(self._parts, call, ticket)
        try:
            if not lease.acquire():
                await lease.wait()
        except BaseException:
            lease.close()
            raise
        return lease

    def forecast(self, call: Call) -> Forecast:
        """What `admit` would do with the call now, by the same rules in the same order; changes nothing."""
        now, parts = self.now(), self._parts
        slots, waiting = parts.slots, parts.waiting
        free = tuple(slots.free(now))
        if slots.out_on_thin_evidence and not slots.usable(now):
            free = tuple(endpoint for endpoint in slots.would_give_way(source_of(call)) if endpoint.has_slot())
        ticket = parts.shares.ticket(call)
        try:
            if len(call.body) in parts.bad_requests.sizes:
                parts.bad_requests.refuse(call, source_of(call).request, now)
            if free and not waiting.queued:
                return Forecast(free)
            slots.refuse_if_down(now)
            waiting.refuse_if_late(call, ticket, now)
            waiting.refuse_if_full(len(call.body))
        except (RequestQuarantined, NoHealthyEndpoint, QueueFull) as refusal:
            return Forecast(free, refusal=refusal)
        ahead, wait = waiting.place(ticket, now)
        return Forecast(free, ahead + 1, wait)

    def foresee(self, size: int) -> None:
        """Raise QueueFull when a call with a body of so many bytes would get neither a slot nor a place in the queue now."""
        waiting = self._parts.waiting
        if waiting.queued or not self._parts.slots.free(self.now()):
            waiting.refuse_if_full(size)

    def judge(self) -> None:
        """Eject outliers, and take back those whose time is over; once a second or so."""
        if self._parts.outliers.judge(self.now()):
            self.dispatch()

    def dispatch(self) -> None:
        """Give free slots to the calls that wait."""
        self._parts.waiting.dispatch()
