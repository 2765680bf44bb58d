"""What calls cost in their tenant's fair share: an estimate when they come, what engines have counted as they run."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from lexora_router.call import Call
from lexora_router.policy.fair_band import Ticket
from lexora_router.policy.fair_queue import FairQueue
from lexora_router.policy.input_ratio import InputRatios

# How far the fair shares may lag behind what running calls generate: to look at them all for each slot would cost more.
CHARGE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Standing:
    """The place of a tenant's calls in the queue: their priority, 0 to 100, and the tenant's weight among equals."""

    priority: int
    weight: float


class Charged(Protocol):
    """A call that holds a slot; `charged` tokens beside its ticket's cost are in its tenant's share already."""

    call: Call
    charged: float

    @property
    def ticket(self) -> Ticket[Any]:
        """Its place in the queue, which stays its account once it is served."""


class FairShares:
    """The accounts of one queue's tenants. `cost` estimates a call's input in tokens; `running` are the calls with a slot."""

    def __init__(
        self,
        queue: FairQueue[Any],
        running: Collection[Charged],
        *,
        standing: Callable[[Call], Standing],
        cost: Callable[[Call], float],
    ) -> None:
        self.standing = standing  # a reload puts another one here
        self._queue = queue
        self._running = running
        self._cost = cost
        self._ratios = InputRatios()
        self._charged_at = float("-inf")

    def ticket(self, call: Call) -> Ticket[Any]:
        """A ticket for a call that comes now."""
        standing, tenant = self.standing(call), call.tenant
        cost = (call.input_estimate or self._cost(call)) * self._ratios.of(tenant)
        return Ticket(tenant, standing.priority, cost, None, standing.weight)

    def correct(self, call: Call, ticket: Ticket[Any]) -> None:
        """Correct the cost of a call that has waited by what was learned of its tenant meanwhile."""
        cost = self._cost(call) * self._ratios.of(ticket.tenant)
        if cost != ticket.cost:
            self._queue.charge(ticket, cost - ticket.cost)
            ticket.cost = cost

    def charge_running(self, now: float) -> None:
        """Charge all calls with a slot, at most once in CHARGE_SECONDS."""
        if now - self._charged_at >= CHARGE_SECONDS:
            self._charged_at = now
            for lease in self._running:
                self.charge(lease)

    def charge(self, lease: Charged) -> None:
        """Charge what the call has cost since the last look: its estimate and events until the engine has counted."""
        receipt, cost = lease.call.receipt, lease.ticket.cost
        usage, tokens = receipt.usage, float(receipt.events)
        if usage is not None:
            # Usage that comes with the first event has not counted what follows it.
            tokens = (usage.input_tokens or cost) - cost + max(usage.output_tokens, receipt.events)
        if tokens != lease.charged:
            self._queue.charge(lease.ticket, tokens - lease.charged)
            lease.charged = tokens

    def settle(self, lease: Charged) -> None:
        """The call is over: charge the rest, and learn how far the estimate of its tenant's input was off."""
        self.charge(lease)
        usage = lease.call.receipt.usage
        if usage is not None and usage.input_tokens:
            call = lease.call
            self._ratios.learn(lease.ticket.tenant, call.input_estimate or self._cost(call), usage.input_tokens)
