"""The slots of one backend's endpoints: which endpoints may be used, taking a slot there, and giving it back."""

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from math import inf

from lexora_router.call import Outcome
from lexora_router.errors import NoHealthyEndpoint
from lexora_router.fleet.endpoint import HttpEndpoint
from lexora_router.fleet.endpoint_health import Condition
from lexora_router.policy.evidence import RequestSource
from lexora_router.policy.picker import pick

Pick = Callable[[Sequence[HttpEndpoint], Callable[[int], int], Sequence[float]], int]


@dataclass(slots=True)  # not frozen: one is made for each attempt
class Slot:
    """A place at an endpoint, and its breaker's permit: taken together, so that half-open one call is the trial."""

    endpoint: HttpEndpoint
    permit: int


class Slots:
    """The slots of interchangeable endpoints. `randrange` breaks ties; instants are seconds of the monotonic clock. `choose` is
    `pick`, or one like it.

    `out_on_thin_evidence`: a breaker may be open only because of a few requests; then other requests may still be let in.
    """

    def __init__(
        self, backend: str, endpoints: Sequence[HttpEndpoint], randrange: Callable[[int], int], choose: Pick = pick
    ) -> None:
        self._backend = backend
        self._randrange = randrange
        self._choose = choose
        self.endpoints = tuple(endpoints)
        self.absence: Callable[[], str] = str  # why there are no endpoints, where they are discovered
        self.out_on_thin_evidence = False
        self.note_thin_evidence(endpoint.condition for endpoint in self.endpoints)

    def usable(self, now: float) -> list[HttpEndpoint]:
        """Endpoints that are available; where there are none, a guess is better than a sure refusal."""
        available = [endpoint for endpoint in self.endpoints if endpoint.condition.available(now)]
        return available or [endpoint for endpoint in self.endpoints if endpoint.condition.may_serve(now)]

    def free(self, now: float) -> list[HttpEndpoint]:
        """Usable endpoints that have a free slot."""
        return with_slot(self.usable(now))

    def untried(self, tried: Set[str], now: float) -> list[HttpEndpoint]:
        """Usable endpoints whose addresses are not among the tried ones."""
        return [endpoint for endpoint in self.usable(now) if endpoint.address not in tried]

    def total(self, now: float) -> int:
        """Slots of the endpoints that calls go to now; at least one."""
        return max(1, sum(endpoint.limit or 0 for endpoint in self.usable(now)))

    def take_free(self, now: float) -> Slot | None:
        """A slot at the best usable endpoint that has a free one; None when there is none."""
        if len(self.endpoints) != 1:
            return self.take(self.free(now), now)
        endpoint = self.endpoints[0]  # the only one is usable whenever its breaker lets a call through
        if not endpoint.condition.may_serve(now) or not endpoint.has_slot():
            return None
        return self.take(self.endpoints, now)

    def take(self, candidates: Sequence[HttpEndpoint], now: float) -> Slot | None:
        """A slot at the best of these endpoints, which all have one free; None when there is no candidate."""
        if not candidates:
            return None
        endpoint = candidates[0]
        if len(candidates) > 1:
            weights = [each.condition.weight(now) for each in candidates]
            endpoint = candidates[self._choose(candidates, self._randrange, weights)]
        slot = Slot(endpoint, endpoint.condition.begin(now))
        endpoint.condition.in_flight += 1  # counted at the choice, so that a burst is spread
        return slot

    def give_back_unused(self, slot: Slot, now: float) -> None:
        """Give back a slot that no attempt has used."""
        slot.endpoint.condition.in_flight -= 1
        slot.endpoint.condition.ended(slot.permit, Outcome.NEUTRAL, now)

    def any_may_serve(self, now: float) -> bool:
        """Whether the breaker of any endpoint lets a call through."""
        return any(endpoint.condition.may_serve(now) for endpoint in self.endpoints)

    def refuse_if_down(self, now: float) -> None:
        """Raise NoHealthyEndpoint when no endpoint may serve."""
        if not self.any_may_serve(now):
            raise self.down(now)

    def down(self, now: float) -> NoHealthyEndpoint:
        """The error for calls while no endpoint may serve, with the reasons of all."""
        if not self.endpoints:
            return NoHealthyEndpoint(f"Backend `{self._backend}` has no endpoint: {self.absence()}.", 1.0)
        reasons = sorted({endpoint.condition.reason for endpoint in self.endpoints if endpoint.condition.reason})
        why = f" ({'; '.join(reasons)[:300]})" if reasons else ""
        message = f"Backend `{self._backend}` has no endpoint that takes calls now{why}."
        return NoHealthyEndpoint(message, max(1.0, min(endpoint.condition.retry_after(now) for endpoint in self.endpoints)))

    def answered_at(self) -> float:
        """When a call ended well at any endpoint, last."""
        return max((endpoint.condition.answered_at for endpoint in self.endpoints), default=-inf)

    def note_thin_evidence(self, conditions: Iterable[Condition]) -> None:
        """Look whether one of these breakers has opened on thin evidence."""
        self.out_on_thin_evidence |= any(condition.out_on_thin_evidence for condition in conditions)

    def give_way(self, source: RequestSource | None, now: float) -> None:
        """Let in a call (None: those that wait) where breakers are open only because of other requests."""
        for endpoint in self.endpoints:
            endpoint.condition.give_way(source, now)
        self.out_on_thin_evidence = any(endpoint.condition.out_on_thin_evidence for endpoint in self.endpoints)

    def would_give_way(self, source: RequestSource) -> list[HttpEndpoint]:
        """Endpoints that `give_way` would open to a call of this source."""
        return [endpoint for endpoint in self.endpoints if endpoint.condition.would_give_way(source)]


def with_slot(endpoints: Sequence[HttpEndpoint]) -> list[HttpEndpoint]:
    """Those of these endpoints that have a free slot."""
    return [endpoint for endpoint in endpoints if endpoint.has_slot()]
