"""The slots of one backend: who holds one at which endpoint, and who waits for the next."""

import asyncio
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from math import inf

import structlog

from lexora_router.call import Call, Outcome
from lexora_router.errors import NoHealthyEndpoint, QueueFull, RequestQuarantined
from lexora_router.fleet.counters import Tally
from lexora_router.fleet.endpoint import HttpEndpoint
from lexora_router.fleet.endpoint_health import Condition
from lexora_router.fleet.forecast import Outlook
from lexora_router.fleet.lease import Slot, SlotLease, Waiting, kind_of_call
from lexora_router.fleet.stalls import MIN_OVERDUE, overdue_at, silences
from lexora_router.policy.breaker import BreakerRules
from lexora_router.policy.drain_rate import DrainRate
from lexora_router.policy.ejection import EjectionRules, Ejector
from lexora_router.policy.evidence import Source
from lexora_router.policy.fair_queue import FairQueue, Ticket
from lexora_router.policy.input_ratio import InputRatios
from lexora_router.policy.picker import pick
from lexora_router.policy.quarantine import Quarantine, fingerprint
from lexora_router.policy.usual_time import UsualTimes

_log = structlog.get_logger("lexora.pool")

# While calls wait, endpoints may become available without anybody telling: a breaker's time passes, a limit grows.
LOOK_SECONDS = 0.05
# How far the fair shares may lag behind what running calls generate: to look at them all for each slot would cost more.
CHARGE_SECONDS = 0.01
# Between two lines of the log about requests that are refused.
LOG_SECONDS = 10.0
# Of longer queues places are estimated: to find one takes 8 us for each call that waits, and all others wait meanwhile.
MAX_TRIED_OUT = 100


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many calls may wait, with how many bytes of bodies in all, and for how long.

    Durations are seconds; after each `aging` a waiting call counts one class higher.
    """

    max_size: int
    max_bytes: int
    timeout: float
    aging: float


@dataclass(frozen=True, slots=True)
class Standing:
    """What a tenant's call is worth in the queue."""

    priority: int
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class _Returning:
    """A call between two attempts, the addresses that have failed it, and when it may go to one of them again."""

    waiting: Waiting
    tried: frozenset[str]
    rested_at: float

    def candidates(self, usable: list[HttpEndpoint], now: float) -> list[HttpEndpoint]:
        """Endpoints that may take it, of one worth: while it rests, only those that are the best it could wait for."""
        untried = [endpoint for endpoint in usable if endpoint.address not in self.tried]
        sound = [endpoint for endpoint in untried if endpoint.condition.sound(now)]
        rests = now < self.rested_at
        for rank in (sound, untried):
            free = _with_slot(rank)
            if free or (rank and rests):
                return free
        # One that asked for patience keeps it, though all others have gone meanwhile; one that asked for ever is a last resort.
        return [] if rests and self.rested_at < inf else _with_slot(usable)


def _with_slot(endpoints: list[HttpEndpoint]) -> list[HttpEndpoint]:
    return [endpoint for endpoint in endpoints if endpoint.has_slot()]


class Pool:
    """Interchangeable endpoints with a queue in front. Work-conserving: no slot is free while a call waits."""

    def __init__(
        self,
        name: str,
        endpoints: Sequence[HttpEndpoint],
        limits: QueueLimits,
        *,
        standing: Callable[[Call], Standing],
        cost: Callable[[Call], float],
        ejection: EjectionRules,
        randrange: Callable[[int], int],
        clock: Callable[[], float],
        tally: Tally | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        self.name = name
        self.endpoints = tuple(endpoints)
        self.limits = limits
        self.tally = tally or Tally()
        self.quarantine = quarantine or Quarantine(BreakerRules())
        self._standing = standing
        self._cost = cost
        self._randrange = randrange
        self._clock = clock
        self._queue: FairQueue[Waiting | None] = FairQueue(max_size=limits.max_size, aging=limits.aging)
        self._returning: list[_Returning] = []  # calls between two attempts keep their place: they go first
        self.waiting_bytes = 0  # of the bodies of calls that wait for their first slot
        self._drain = DrainRate()
        self._ejector = Ejector(ejection)
        self._leases: set[SlotLease] = set()
        self._charged_at = float("-inf")
        self._ratios = InputRatios()
        self._out_on_thin_evidence = any(endpoint.condition.out_on_thin_evidence for endpoint in self.endpoints)
        self._log_after = float("-inf")
        self._max_silence = ejection.max_silence
        self.usual = UsualTimes()  # of unary answers
        self.gone_silent: frozenset[str] = frozenset()  # addresses where several calls are overdue, as of the last judgement
        self._silent: dict[str, float] = {}  # by address: since when, as of the last judgement
        self._look: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Calls that wait for a slot."""
        return len(self._queue) + len(self._returning)

    def follow(
        self,
        endpoints: Sequence[HttpEndpoint],
        limits: QueueLimits,
        *,
        standing: Callable[[Call], Standing],
        ejection: EjectionRules,
    ) -> None:
        """Go on under another configuration: who waits keeps its place, who holds a slot keeps it until its call is done."""
        self.endpoints = tuple(endpoints)
        self.limits = limits
        self._queue.max_size, self._queue.aging = limits.max_size, limits.aging
        self._standing = standing
        self._ejector.follow(ejection)
        self._max_silence = ejection.max_silence

    def now(self) -> float:
        """The clock's reading, in seconds."""
        return self._clock()

    async def admit(self, call: Call) -> SlotLease:
        """Wait for a slot. Raises QueueFull, RequestQuarantined, or NoHealthyEndpoint when every breaker is open."""
        lease = SlotLease(self, call, self._ticket(call))
        came = self._clock()
        if self.quarantine.knows_size(len(call.body)):
            self._refuse_if_quarantined(call, came)
            lease.permit = self.quarantine.begin(lease.source.request, came, self._answered_at())
        if self._out_on_thin_evidence:
            self._give_way(lease.source, came)
        try:
            await lease.acquire()
        except BaseException:
            lease.close()
            raise
        self.tally.waits.add(self._clock() - came)
        self._leases.add(lease)
        return lease

    def outlook(self, call: Call) -> Outlook:
        """What `admit` would do with the call now, by the same rules in the same order; changes nothing."""
        now = self._clock()
        usable = self._usable(now)
        if self._out_on_thin_evidence:
            source = Source(call.tenant, fingerprint(call.path, call.body))
            usable = usable or [each for each in self.endpoints if each.condition.would_give_way(source)]
        free = tuple(_with_slot(usable))
        try:
            self._refuse_if_quarantined(call, now)
        except RequestQuarantined as refusal:
            return Outlook(free, refusal=refusal)
        if free and not len(self._queue):
            return Outlook(free)
        ticket = self._ticket(call)
        try:
            self._refuse_if_down(now)
            self._refuse_if_late(call, ticket, now)
            self._refuse_if_full(len(call.body))
        except (NoHealthyEndpoint, QueueFull) as refusal:
            return Outlook(free, refusal=refusal)
        exact = len(self._queue) <= MAX_TRIED_OUT
        place = self._queue.place(ticket, now) if exact else self._queue.ahead(ticket.priority, now, call.tenant, ticket.weight)
        ahead = len(self._returning) + place
        return Outlook(free, ahead + 1, self._drain.wait(ahead, self._slots(), now))

    def foresee(self, size: int) -> None:
        """Raise QueueFull when a call with a body of so many bytes would get neither a slot nor a place in the queue now."""
        if len(self._queue) or not _with_slot(self._usable(self._clock())):
            self._refuse_if_full(size)

    # -- for leases

    async def first(self, lease: SlotLease) -> Slot:
        """A slot for a new call: at once when none waits, else in its turn."""
        now = self._clock()
        slot = None if len(self._queue) else self._take(now)
        if slot is not None:
            self._queue.serve(lease.ticket)
            return slot
        self._refuse_if_down(now)
        size = len(lease.call.body)
        self._enqueue(lease, size, now)
        assert lease.ticket.item is not None
        self.waiting_bytes += size
        try:
            slot = await self._slot(lease.ticket.item)
        finally:
            self.waiting_bytes -= size
            self._queue.remove(lease.ticket)
            self._left()
        self._price(lease)
        return slot

    async def again(self, lease: SlotLease, rest: float) -> Slot:
        """A slot for a call's next attempt: before all that have had none yet, and at an endpoint it has not tried.

        While all of these are full for `rest` seconds, the call waits for them; then any endpoint will do.
        """
        now = self._clock()
        returning = _Returning(asyncio.get_running_loop().create_future(), frozenset(lease.tried), now + rest)
        slot = self._take(now, returning)
        if slot is not None:
            return slot
        self._refuse_if_down(now)
        self._returning.append(returning)
        self._look_again()
        try:
            return await self._slot(returning.waiting)
        finally:
            if returning in self._returning:
                self._returning.remove(returning)
            self._left()

    def release(self, slot: Slot, held: float | None = None) -> None:
        """A slot is free after `held` seconds of use, None when it was not used: the next call gets it."""
        now = self._clock()
        if held is None:
            self._give_back(slot, now)
        else:
            slot.endpoint.condition.in_flight -= 1
            self._drain.finished(held, now)
        self.dispatch()

    def done(self, lease: SlotLease) -> None:
        """The call is over."""
        self._charge(lease)
        self._learn(lease.call)
        self._leases.discard(lease)

    def blame(self, lease: SlotLease, endpoint: HttpEndpoint, began: float, *, fatal: bool, heard: bool) -> None:
        """Put a failed attempt on the record of its request, and look whether a breaker has opened on thin evidence."""
        call, request, condition = lease.call, lease.source.request, endpoint.condition
        self.note_thin_evidence((condition,))
        held = self.quarantine.failed(
            request,
            len(call.body),
            endpoint.address,
            self._clock(),
            began=began,
            permit=lease.permit,
            vouched=condition.vouched,
            answered_at=condition.answered_at,
            pool_answered_at=self._answered_at(),
            fatal=fatal,
            heard=heard,
        )
        now = self._clock()
        if held and now >= self._log_after:  # a client may send ever new ones
            self._log_after = now + LOG_SECONDS
            where = {"backend": self.name, "endpoint": endpoint.address}
            _log.warning("request_quarantined", **where, user=call.tenant, model=call.model, path=call.path, request_id=call.id)

    def note_thin_evidence(self, conditions: Iterable[Condition]) -> None:
        """Look whether one of these breakers has opened on thin evidence: then the next call is asked for its source."""
        self._out_on_thin_evidence |= any(condition.out_on_thin_evidence for condition in conditions)

    def judge(self) -> None:
        """Eject outliers, and take back those whose time is over; at most once a second, and when a breaker opens."""
        if len(self.endpoints) == 1:
            return
        now = self._clock()
        by_address = {endpoint.address: endpoint for endpoint in self.endpoints}
        # Silence goes on when those that waited have left and others wait: clients may be less patient than we are.
        self._silent = {
            key: max(min(now - seconds, self._silent.get(key, now)), by_address[key].condition.heard_at)
            for key, seconds in silences(self._leases, now).items()
            if key in by_address
        }
        self.gone_silent = frozenset(
            key
            for key, calls in overdue_at(self._leases).items()
            if calls >= MIN_OVERDUE and now - self._silent.get(key, now) >= self._max_silence
        )
        signals = {key: each.condition.signals(now, now - self._silent.get(key, now)) for key, each in by_address.items()}
        verdict = self._ejector.judge(signals, now)
        for ejection in verdict.ejected:
            by_address[ejection.key].condition.eject(ejection.until, f"ejected: {ejection.reason}")
        for key in verdict.returned:
            by_address[key].condition.returned(now)
        if verdict.ejected or verdict.returned:
            self.dispatch()

    def overdue_after(self, call: Call) -> float:
        """Seconds after which a unary answer of this kind is overdue: never sooner than a silence is one."""
        return max(self._max_silence, self.usual.bound(kind_of_call(call)))

    def untried(self, tried: Set[str]) -> list[HttpEndpoint]:
        """Endpoints that may get the next attempt and whose addresses are not among the tried ones."""
        return [endpoint for endpoint in self._usable(self._clock()) if endpoint.address not in tried]

    def dispatch(self) -> None:
        """Give free slots to those who wait, in the queue's order."""
        if not self.waiting:
            return
        now = self._clock()
        self._charge_all(now)
        self._returning = [returning for returning in self._returning if not self._serve(returning, now)]
        while len(self._queue) and (slot := self._take(now)) is not None:
            waiting = self._next(now)
            if waiting.done():
                self._give_back(slot, now)
            else:
                waiting.set_result(slot)
        if self.waiting and not any(endpoint.condition.may_serve(now) for endpoint in self.endpoints):
            if self._out_on_thin_evidence:
                self._give_way(None, now)
            else:
                self._evict(now)
        self._left()
        self._look_again()

    # -- inside

    def _usable(self, now: float) -> list[HttpEndpoint]:
        """Endpoints that are available; where there are none, a guess is better than a sure refusal."""
        available = [endpoint for endpoint in self.endpoints if endpoint.condition.available(now)]
        return available or [endpoint for endpoint in self.endpoints if endpoint.condition.may_serve(now)]

    def _take(self, now: float, returning: _Returning | None = None) -> Slot | None:
        """The best slot there is."""
        usable = self._usable(now)
        candidates = _with_slot(usable) if returning is None else returning.candidates(usable, now)
        if not candidates:
            return None
        weights = [endpoint.condition.weight(now) for endpoint in candidates]
        endpoint = candidates[pick(candidates, self._randrange, weights)]
        endpoint.condition.in_flight += 1  # counted at the choice, so that a burst is spread
        return Slot(endpoint, endpoint.condition.begin(now))

    def _give_back(self, slot: Slot, now: float) -> None:
        """A slot that no attempt has used."""
        slot.endpoint.condition.in_flight -= 1
        slot.endpoint.condition.ended(slot.permit, Outcome.NEUTRAL, now)

    def _serve(self, returning: _Returning, now: float) -> bool:
        """Whether the call needs to wait no longer."""
        if returning.waiting.done():
            return True
        slot = self._take(now, returning)
        if slot is None:
            return False
        returning.waiting.set_result(slot)
        return True

    def _next(self, now: float) -> Waiting:
        ticket = self._queue.pop(now)
        assert ticket is not None
        assert ticket.item is not None
        return ticket.item

    async def _slot(self, waiting: Waiting) -> Slot:
        """Wait for the slot, up to `queue.timeout`; one that comes as the call leaves is given back."""
        try:
            async with asyncio.timeout(self.limits.timeout):
                return await waiting
        except BaseException as error:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                self.release(waiting.result())
            waiting.cancel()
            if isinstance(error, TimeoutError):
                message = f"The call waited {self.limits.timeout:g} s for backend `{self.name}` (queue.timeout)."
                raise QueueFull(message, self._retry_after(), "queue_timeout") from None
            raise

    def _left(self) -> None:
        """After the last that waited the drain rate is that of a pool with free slots."""
        if not self.waiting:
            self._drain.drained()

    def _ticket(self, call: Call) -> Ticket[Waiting | None]:
        standing = self._standing(call)
        cost = self._cost(call) * self._ratios.of(call.tenant)
        return Ticket(call.tenant, standing.priority, cost, None, standing.weight, call.deadline)

    def _enqueue(self, lease: SlotLease, size: int, now: float) -> None:
        ticket = lease.ticket
        self._refuse_if_late(lease.call, ticket, now)
        self._refuse_if_full(size)
        ticket.item = asyncio.get_running_loop().create_future()
        self._queue.push(ticket, now)
        self._drain.waiting(now)
        self._look_again()

    def _refuse_if_full(self, size: int) -> None:
        """Raise QueueFull when one call more, with a body of so many bytes, may not wait."""
        limits = self.limits
        if len(self._queue) >= self._queue.max_size:
            message = f"The queue of backend `{self.name}` is full (queue.max_size: {limits.max_size})."
        elif self.waiting_bytes + size > limits.max_bytes:
            message = (
                f"The queue of backend `{self.name}` is full: it holds {self.waiting_bytes} bytes of request bodies, "
                f"and this one has {size} (queue.max_bytes: {limits.max_bytes})."
            )
        else:
            return
        raise QueueFull(message, self._retry_after())

    def _refuse_if_late(self, call: Call, ticket: Ticket[Waiting | None], now: float) -> None:
        deadline = call.deadline
        if deadline is None:
            return
        slots = self._slots()
        longest = self._drain.wait(len(self._queue), slots, now)
        if longest is None or now + longest <= deadline:
            return  # in time even behind all others, so that nobody needs to look at each tenant's turns
        ahead = self._queue.ahead(ticket.priority, now, call.tenant, ticket.weight)
        wait = self._drain.wait(ahead, slots, now) or 0.0
        if now + wait > deadline:
            left = max(deadline - now, 0.0)
            raise QueueFull(
                f"The wait for backend `{self.name}` is about {wait:.1f} s, but the call's deadline is in {left:.1f} s.",
                self._drain.retry_after(ahead, slots, now),
                "deadline",
            )

    def _give_way(self, source: Source | None, now: float) -> None:
        """Let in a call (None: those that wait) where breakers are open only because of others' requests."""
        for endpoint in self.endpoints:
            endpoint.condition.give_way(source, now)
        self._out_on_thin_evidence = any(endpoint.condition.out_on_thin_evidence for endpoint in self.endpoints)

    def _answered_at(self) -> float:
        """When a call ended well at any endpoint, last."""
        return max(endpoint.condition.answered_at for endpoint in self.endpoints)

    def _refuse_if_quarantined(self, call: Call, now: float) -> None:
        if not self.quarantine.knows_size(len(call.body)):
            return
        wait = self.quarantine.wait(fingerprint(call.path, call.body), now, self._answered_at())
        if wait:
            message = (
                f"This very request has failed again and again at backend `{self.name}`, wherever it was tried; it may "
                f"be tried again in {wait:.1f} s. Change it, or see the first errors that it got."
            )
            raise RequestQuarantined(message, wait)

    def _refuse_if_down(self, now: float) -> None:
        if not any(endpoint.condition.may_serve(now) for endpoint in self.endpoints):
            raise self._down(now)

    def _down(self, now: float) -> NoHealthyEndpoint:
        reasons = sorted({endpoint.condition.reason for endpoint in self.endpoints if endpoint.condition.reason})
        why = f" ({'; '.join(reasons)[:300]})" if reasons else ""
        message = f"Backend `{self.name}` has no endpoint that takes calls now{why}."
        return NoHealthyEndpoint(message, max(1.0, min(endpoint.condition.retry_after(now) for endpoint in self.endpoints)))

    def _evict(self, now: float) -> None:
        """No endpoint may serve: who waits is told, so that another target can be asked."""
        evicted = [returning.waiting for returning in self._returning]
        self._returning = []
        while len(self._queue):
            evicted.append(self._next(now))
        for waiting in evicted:
            if not waiting.done():
                waiting.set_exception(self._down(now))

    def _retry_after(self) -> float:
        return self._drain.retry_after(len(self._queue), self._slots(), self._clock())

    def _slots(self) -> int:
        """Slots of the endpoints that calls go to now; at least one."""
        return max(1, sum(endpoint.limit or 0 for endpoint in self._usable(self._clock())))

    def _charge_all(self, now: float) -> None:
        if now - self._charged_at >= CHARGE_SECONDS:
            self._charged_at = now
            for lease in self._leases:
                self._charge(lease)

    def _charge(self, lease: SlotLease) -> None:
        """Charge what the call has cost since the last look: its estimate and events until the engine has counted."""
        receipt, usage, cost = lease.call.receipt, lease.call.receipt.usage, lease.ticket.cost
        tokens: float = receipt.events
        if usage is not None:
            # Usage that comes with the first event has not counted what follows it.
            tokens = (usage.input_tokens or cost) - cost + max(usage.output_tokens, receipt.events)
        if tokens != lease.charged:
            self._queue.charge(lease.ticket, tokens - lease.charged)
            lease.charged = tokens

    def _price(self, lease: SlotLease) -> None:
        """Correct the cost of a call that has waited by what was learned of its tenant meanwhile."""
        cost = self._cost(lease.call) * self._ratios.of(lease.call.tenant)
        if cost != lease.ticket.cost:
            self._queue.charge(lease.ticket, cost - lease.ticket.cost)
            lease.ticket.cost = cost

    def _learn(self, call: Call) -> None:
        usage = call.receipt.usage
        if usage is not None and usage.input_tokens:
            self._ratios.learn(call.tenant, self._cost(call), usage.input_tokens)

    def _look_again(self) -> None:
        if self.waiting and self._look is None:
            self._look = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._on_look)

    def _on_look(self) -> None:
        self._look = None
        self.dispatch()
