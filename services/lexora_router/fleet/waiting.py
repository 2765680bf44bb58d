"""The calls that wait for a slot: new ones in a fair queue, and before them those that return for another attempt."""

import asyncio
from collections.abc import Callable, Set
from dataclasses import dataclass
from math import inf

from lexora_router.call import Call
from lexora_router.errors import QueueFull
from lexora_router.fleet.endpoint import HttpEndpoint
from lexora_router.fleet.shares import FairShares
from lexora_router.fleet.slots import Slot, Slots, with_slot
from lexora_router.policy.drain_rate import DrainRate
from lexora_router.policy.fair_band import Ticket
from lexora_router.policy.fair_queue import FairQueue

# While calls wait, endpoints may become available without any event: a breaker's time passes, a limit grows.
LOOK_SECONDS = 0.05
# Of longer queues places are estimated: to find one takes 8 us for each call that waits, and all others wait meanwhile.
MAX_TRIED_OUT = 100

Waiter = asyncio.Future[Slot]
QueueTicket = Ticket[Waiter | None]


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many calls may wait, with how many bytes of bodies in all, and for how long.

    Durations are seconds; after each `aging` a waiting call counts one class higher.
    """

    max_size: int
    max_bytes: int
    timeout: float
    aging: float


@dataclass(frozen=True, slots=True, eq=False)
class _Returning:
    """A call between two attempts, the addresses that have failed it, and when it may go to one of them again."""

    waiter: Waiter
    tried: frozenset[str]
    rested_at: float

    def candidates(self, usable: list[HttpEndpoint], now: float) -> list[HttpEndpoint]:
        """Endpoints that may take it, of one worth: while it rests, only those that are the best it could wait for."""
        untried = [endpoint for endpoint in usable if endpoint.address not in self.tried]
        sound = [endpoint for endpoint in untried if endpoint.condition.sound(now)]
        rests = now < self.rested_at
        for rank in (sound, untried):
            free = with_slot(rank)
            if free or (rank and rests):
                return free
        # An endpoint that asked for a pause gets it, though all others have gone meanwhile; one that must not be tried again
        # (inf) is a last resort.
        return [] if rests and self.rested_at < inf else with_slot(usable)


class WaitingCalls:
    """The calls of one backend that wait for a slot. Work-conserving: no slot is free while a call waits that could use it."""

    def __init__(
        self,
        backend: str,
        limits: QueueLimits,
        *,
        slots: Slots,
        queue: FairQueue[Waiter | None],
        shares: FairShares,
        clock: Callable[[], float],
    ) -> None:
        self.limits = limits
        self.bytes = 0  # of the bodies of calls that wait for their first slot
        self._backend = backend
        self._slots = slots
        self._queue = queue
        self._shares = shares
        self._clock = clock
        self._returning: list[_Returning] = []  # calls between two attempts keep their place: they go first
        self._drain = DrainRate()
        self._look: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._queue.size + len(self._returning)

    def follow(self, limits: QueueLimits) -> None:
        """Go on under other limits; calls that wait keep their places."""
        self.limits = limits
        self._queue.aging = limits.aging

    def at_once(self, ticket: QueueTicket, now: float) -> Slot | None:
        """A slot for a new call while none waits; None when there is no free one."""
        slot = None if self._queue.size else self._slots.take_free(now)
        if slot is not None:
            self._queue.serve(ticket)
        return slot

    async def in_turn(self, call: Call, ticket: QueueTicket) -> Slot:
        """A slot for a new call that has to wait. Raises QueueFull or NoHealthyEndpoint."""
        now, slots = self._clock(), self._slots
        slots.refuse_if_down(now)
        size = len(call.body)
        self.refuse_if_late(call, ticket, now)
        self.refuse_if_full(size)
        ticket.item = waiter = asyncio.get_running_loop().create_future()
        self._queue.push(ticket, now)
        self._drain.waiting(now)
        self._look_again()
        self.bytes += size
        try:
            slot = await self._wait(waiter, call.max_queue_time)
        finally:
            self.bytes -= size
            self._queue.remove(ticket)
            self._note_if_empty()
        self._shares.correct(call, ticket)
        return slot

    async def again(self, tried: Set[str], rest: float) -> Slot:
        """A slot for a call's next attempt: before all that have had none yet, and at an endpoint it has not tried.

        While all of these are full for `rest` seconds, the call waits for them; then any endpoint will do.
        """
        now, slots = self._clock(), self._slots
        returning = _Returning(asyncio.get_running_loop().create_future(), frozenset(tried), now + rest)
        slot = slots.take(returning.candidates(slots.usable(now), now), now)
        if slot is not None:
            return slot
        slots.refuse_if_down(now)
        self._returning.append(returning)
        self._look_again()
        try:
            return await self._wait(returning.waiter)
        finally:
            if returning in self._returning:
                self._returning.remove(returning)
            self._note_if_empty()

    def release(self, slot: Slot, since: float | None = None) -> None:
        """A slot is free that was used since then, None when it was not used: the next call gets it."""
        now = self._clock()
        if since is None:
            self._slots.give_back_unused(slot, now)
        else:
            slot.endpoint.condition.in_flight -= 1
            self._drain.finished(now - since, now)
        if self._returning or self._queue.size:
            self.dispatch()

    def dispatch(self) -> None:
        """Give free slots to the calls that wait, in the queue's order."""
        if not len(self):
            return
        now, slots = self._clock(), self._slots
        self._shares.charge_running(now)
        self._returning = [returning for returning in self._returning if not self._serve(returning, now)]
        while self._queue.size and (slot := slots.take(slots.free(now), now)) is not None:
            waiter = self._next(now)
            if waiter.done():
                slots.give_back_unused(slot, now)
            else:
                waiter.set_result(slot)
        if len(self) and not slots.any_may_serve(now):
            if slots.out_on_thin_evidence:
                slots.give_way(None, now)
            else:
                self._evict(now)
        self._note_if_empty()
        self._look_again()

    # -- what a call would meet

    def refuse_if_full(self, size: int) -> None:
        """Raise QueueFull when one call more, with a body of so many bytes, may not wait."""
        limits = self.limits
        if self._queue.size >= limits.max_size:
            message = f"The queue of backend `{self._backend}` is full (queue.max_size: {limits.max_size})."
        elif self.bytes + size > limits.max_bytes:
            message = (
                f"The queue of backend `{self._backend}` is full: it holds {self.bytes} bytes of request bodies, "
                f"and this one has {size} (queue.max_bytes: {limits.max_bytes})."
            )
        else:
            return
        raise QueueFull(message, self._retry_after())

    def refuse_if_late(self, call: Call, ticket: QueueTicket, now: float) -> None:
        """Raise QueueFull when the call's turn would come after its deadline."""
        deadline = call.deadline
        if deadline is None:
            return
        slots = self._slots.total(now)
        longest = self._drain.wait(self._queue.size, slots, now)
        if longest is None or now + longest <= deadline:
            return  # in time even behind all others, so that each tenant's turns need not be looked at
        ahead = self._queue.ahead(ticket.priority, now, call.tenant, ticket.weight)
        wait = self._drain.wait(ahead, slots, now) or 0.0
        if now + wait > deadline:
            left = max(deadline - now, 0.0)
            raise QueueFull(
                f"The wait for backend `{self._backend}` is about {wait:.1f} s, but the call's deadline is in {left:.1f} s.",
                self._drain.retry_after(ahead, slots, now),
                "deadline",
            )

    def place(self, ticket: QueueTicket, now: float) -> tuple[int, float | None]:
        """How many calls would be served before a new one with this ticket, and about how many seconds it would wait."""
        exact = self._queue.size <= MAX_TRIED_OUT
        turn = (
            self._queue.place(ticket, now) if exact else self._queue.ahead(ticket.priority, now, ticket.tenant, ticket.weight)
        )
        ahead = len(self._returning) + turn
        return ahead, self._drain.wait(ahead, self._slots.total(now), now)

    @property
    def queued(self) -> int:
        """New calls that wait for their first slot."""
        return self._queue.size

    # -- inside

    def _serve(self, returning: _Returning, now: float) -> bool:
        """Whether the call needs to wait no longer."""
        if returning.waiter.done():
            return True
        slot = self._slots.take(returning.candidates(self._slots.usable(now), now), now)
        if slot is None:
            return False
        returning.waiter.set_result(slot)
        return True

    def _next(self, now: float) -> Waiter:
        ticket = self._queue.pop(now)
        assert ticket is not None
        assert ticket.item is not None
        return ticket.item

    async def _wait(self, waiter: Waiter, longest: float | None = None) -> Slot:
        """Wait for the slot, up to `queue.timeout` or `longest` seconds; one that comes as the call leaves is given back."""
        seconds, bound = self.limits.timeout, "queue.timeout"
        if longest is not None and longest < seconds:
            seconds, bound = longest, "its own max_queue_time"
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(waiter.result())
            waiter.cancel()
            if isinstance(error, TimeoutError):
                message = f"The call waited {seconds:g} s for backend `{self._backend}` ({bound})."
                raise QueueFull(message, self._retry_after(), "queue_timeout") from None
            raise

    def _evict(self, now: float) -> None:
        """No endpoint may serve: fail the calls that wait, so that another target can be asked."""
        evicted = [returning.waiter for returning in self._returning]
        self._returning = []
        while self._queue.size:
            evicted.append(self._next(now))
        for waiter in evicted:
            if not waiter.done():
                waiter.set_exception(self._slots.down(now))

    def _retry_after(self) -> float:
        now = self._clock()
        return self._drain.retry_after(self._queue.size, self._slots.total(now), now)

    def _note_if_empty(self) -> None:
        """After the last call that waited the drain rate is that of a pool with free slots."""
        if not len(self):
            self._drain.drained()

    def _look_again(self) -> None:
        if len(self) and self._look is None:
            self._look = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._on_look)

    def _on_look(self) -> None:
        self._look = None
        self.dispatch()
