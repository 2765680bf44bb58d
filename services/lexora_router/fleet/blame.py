"""Whose fault the failed attempts of one call were: their endpoints', or the request's."""

from lexora_router.call import Call
from lexora_router.errors import UpstreamFailure, UpstreamTimeout
from lexora_router.fleet.bad_requests import BadRequests, source_of
from lexora_router.fleet.endpoint_health import Condition
from lexora_router.fleet.slots import Slot, Slots
from lexora_router.policy.evidence import Charge, RequestSource
from lexora_router.policy.failures import MAX_FAILED, is_fatal


class Blame:
    """The failures of one call since its last token. Made for the first failure, or for a request that may be a known one."""

    __slots__ = ("_bad_requests", "_call", "_charges", "_failed", "_failed_early", "_slots", "permit", "source")

    def __init__(self, call: Call, slots: Slots, bad_requests: BadRequests) -> None:
        self.source: RequestSource = source_of(call)
        self.permit = 0  # of the request's own breaker, where it has one
        self._call = call
        self._slots = slots
        self._bad_requests = bad_requests
        self._failed: list[Condition] = []  # endpoints that failed since the last token
        self._failed_early: list[Condition] = []  # those of them that had given no token
        self._charges: list[tuple[Condition, Charge]] = []

    def may_go_on(self) -> bool:
        """Whether the call may be tried again: one that MAX_FAILED endpoints have failed at, without a token, gets no more."""
        if not self._failed:
            return True
        return len(self._failed_early) < MAX_FAILED and not self._bad_requests.quarantine.suspects(self.source.request)

    def failed(self, slot: Slot, failure: UpstreamFailure, began: float, now: float, *, heard: bool) -> None:
        """An endpoint failed at the request: whose fault it is follows from where else it failed, and from what others got.

        The attempt `began` then; `heard`: it had given a token.
        """
        condition, others, quarantine = slot.endpoint.condition, self._failed, self._bad_requests.quarantine
        request = self.source.request
        elsewhere = any(other is not condition and other.vouched for other in others)
        excused = elsewhere or _was_alive(condition, failure, now) or quarantine.suspects(request)
        fatal = is_fatal(failure, slot.endpoint.adapter.death)
        charge = condition.failed(slot.permit, now, self.source, excused=excused, broke=began if fatal else None)
        if charge is not None and not excused and quarantine.answered_lately(request):
            condition.confirm(charge, now)  # the same request has succeeded before
        elif charge is not None:
            self._charges.append((condition, charge))
        if condition not in others:
            others.append(condition)
        if not heard and condition not in self._failed_early:
            self._failed_early.append(condition)
        if condition.vouched:
            for other, earlier in self._charges:
                if other is not condition:
                    other.excuse(earlier, now)
        self._slots.note_thin_evidence((condition,))
        self._bad_requests.failed(self._call, request, slot, now, permit=self.permit, began=began, fatal=fatal, heard=heard)

    def answered(self, slot: Slot | None, now: float) -> None:
        """The endpoint of this slot has answered: those that failed before were to blame."""
        if not self._failed:
            return
        last = slot.endpoint.condition if slot is not None else None
        for condition, charge in self._charges:
            if condition is not last:
                condition.confirm(charge, now)
        self._slots.note_thin_evidence(condition for condition, _ in self._charges)
        self._charges.clear()
        self._failed.clear()
        self._failed_early.clear()
        self._bad_requests.quarantine.absolve(self.source.request, now)

    def left(self, now: float) -> None:
        """The call is over: where it was the trial of its request, and has not said how it went, it says nothing."""
        if self.permit:
            self._bad_requests.quarantine.left(self.source.request, now, self.permit)


def _was_alive(condition: Condition, failure: UpstreamFailure, now: float) -> bool:
    """Whether others were answered while this call waited in vain: then it was not the endpoint that was silent."""
    if not isinstance(failure, UpstreamTimeout):
        return False
    # What was heard may have been this call's own beginning.
    heard_at = condition.answered_at if failure.phase == "idle" else condition.heard_at
    return heard_at > now - failure.seconds / 2
