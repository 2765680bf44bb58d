"""Requests that fail wherever they go: their record in the quarantine of one backend, and their refusal."""

import structlog

from lexora_router.call import Call
from lexora_router.errors import RequestQuarantined
from lexora_router.fleet.slots import Slot, Slots
from lexora_router.policy.evidence import RequestSource
from lexora_router.policy.quarantine import Quarantine, fingerprint

# Between two lines of the log about requests that are refused.
LOG_SECONDS = 10.0

_log = structlog.get_logger("lexora.pool")


def source_of(call: Call) -> RequestSource:
    """The call's tenant and the fingerprint of its request, which takes time for a long body."""
    return RequestSource(call.tenant, fingerprint(call.path, call.body))


class BadRequests:
    """The quarantine of one backend, and where its endpoints come in. Instants are seconds of the monotonic clock.

    Only a request whose length is among `sizes` may be a known one: the cheap question before its fingerprint.
    """

    def __init__(self, backend: str, slots: Slots, quarantine: Quarantine) -> None:
        self.quarantine = quarantine
        self.sizes = quarantine.sizes
        self._backend = backend
        self._slots = slots
        self._log_after = float("-inf")

    def refuse(self, call: Call, request: int, now: float) -> None:
        """Raise RequestQuarantined for a request that is closed out now."""
        wait = self.quarantine.wait(request, now, self._slots.answered_at())
        if wait:
            message = (
                f"This very request has failed again and again at backend `{self._backend}`, wherever it was tried; it may "
                f"be tried again in {wait:.1f} s. Change it, or see the first errors that it got."
            )
            raise RequestQuarantined(message, wait)

    def begin(self, request: int, now: float) -> int:
        """The request is let in: its permit, 0 when it is not a known one."""
        return self.quarantine.begin(request, now, self._slots.answered_at())

    def failed(
        self, call: Call, request: int, slot: Slot, now: float, *, permit: int, began: float, fatal: bool, heard: bool
    ) -> None:
        """Put a failed attempt on the record of its request, and log when the request is refused from now on."""
        endpoint, condition = slot.endpoint, slot.endpoint.condition
        closed_out = self.quarantine.failed(
            request,
            len(call.body),
            endpoint.address,
            now,
            began=began,
            permit=permit,
            vouched=condition.vouched,
            answered_at=condition.answered_at,
            pool_answered_at=self._slots.answered_at(),
            fatal=fatal,
            heard=heard,
        )
        if closed_out and now >= self._log_after:  # a client may send ever new ones
            self._log_after = now + LOG_SECONDS
            where = {"backend": self._backend, "endpoint": endpoint.address}
            _log.warning("request_quarantined", **where, user=call.tenant, model=call.model, path=call.path, request_id=call.id)
