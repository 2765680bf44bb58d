"""The calls that wait for slots which this replica leases: their waits are shared with other replicas, and so are the slots."""

from collections.abc import Callable, Collection, Sequence, Set
from typing import Any

from lexora_contract.priority import HIGH
from lexora_router.call import Call
from lexora_router.fleet.endpoint import HttpEndpoint
from lexora_router.fleet.shares import Charged, FairShares
from lexora_router.fleet.slots import Slot, Slots
from lexora_router.fleet.waiting import QueueLimits, QueueTicket, Waiter, WaitingCalls
from lexora_router.leases.slots import MAX_CHARGES, PoolLease, Served
from lexora_router.policy.counted_queue import CountedQueue
from lexora_router.policy.picker import pick
from lexora_router.state.programs.slots import Flow


class SharedWaiting(WaitingCalls):
    """As WaitingCalls, with slots from a lease. `running` are the calls that have been admitted."""

    def __init__(
        self,
        backend: str,
        limits: QueueLimits,
        *,
        slots: Slots,
        queue: CountedQueue[Waiter | None],
        shares: FairShares,
        clock: Callable[[], float],
        lease: PoolLease,
        running: Collection[Charged],
    ) -> None:
        super().__init__(backend, limits, slots=slots, queue=queue, shares=shares, clock=clock)
        self._counted = queue
        self._lease = lease
        self._running = running
        self._unsaid: dict[str, float] = {}  # charges beyond MAX_CHARGES
        lease.serve(self)

    async def in_turn(self, call: Call, ticket: QueueTicket) -> Slot:
        """See WaitingCalls."""
        self._lease.waits(ticket.priority, self._counted.top(self._clock()))
        return await super().in_turn(call, ticket)

    async def again(self, tried: Set[str], rest: float) -> Slot:
        """See WaitingCalls."""
        if not self._returning:
            self._lease.waits(HIGH + 1, HIGH)
        return await super().again(tried, rest)

    def release(self, slot: Slot, since: float | None = None) -> None:
        """See WaitingCalls; the slot may be wanted elsewhere."""
        lease = slot.endpoint.lease
        if lease is not None:
            self._lease.releases(lease)
        super().release(slot, since)

    # -- what the lease asks

    def flows(self, now: float) -> list[Flow]:
        """All flows, those that go first at the beginning."""
        running: dict[tuple[int, str], tuple[int, float]] = {}
        for each in self._running:
            ticket = each.ticket
            key = ticket.priority, ticket.tenant
            running[key] = (running.get(key, (0, 0.0))[0] + 1, ticket.weight)
        found = [Flow("", HIGH, HIGH, 1.0, len(self._returning), 0)] if self._returning else []
        for flow in self._counted.flows(now):
            beside, _ = running.pop((flow.priority, flow.tenant), (0, 0.0))
            name = f"{flow.priority}/{flow.tenant}" if flow.tenant else ""
            found.append(Flow(name, flow.priority, flow.level, flow.weight, flow.waiting, beside))
        for (priority, tenant), (number, weight) in sorted(running.items(), key=lambda row: -row[1][0]):
            found.append(Flow(f"{priority}/{tenant}", priority, priority, weight, 0, number))
        return found

    def served(self) -> Served:
        """What was served since this was asked last; of many flows first those that were served most."""
        self._shares.charge_running(self._clock())
        charges, tokens, calls = self._counted.take_served()
        for (priority, tenant), amount in charges.items():
            flow = f"{priority}/{tenant}"
            self._unsaid[flow] = self._unsaid.get(flow, 0.0) + amount
        said = sorted(self._unsaid.items(), key=lambda row: -abs(row[1]))
        self._unsaid = dict(said[MAX_CHARGES : 2 * MAX_CHARGES])
        return Served(tuple(said[:MAX_CHARGES]), tokens, calls)

    def charge_others(self, key: str, amount: float) -> None:
        """Another replica has served so many weighted tokens of this flow."""
        priority, _, tenant = key.partition("/")
        self._counted.charge_others(int(priority), tenant, amount)


def pick_by_sum(
    candidates: Sequence[HttpEndpoint], randrange: Callable[[int], int], weights: Sequence[float] | None = None
) -> int:
    """As `pick`, by the attempts of all replicas."""
    loads: list[Any] = [endpoint.lease or endpoint for endpoint in candidates]
    return pick(loads, randrange, weights)
