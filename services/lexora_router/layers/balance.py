"""Which endpoint gets the attempt, and what its end means for it."""

from collections.abc import Awaitable, Callable

from lexora_contract.port import Sink
from lexora_router.call import Call, Handler, Outcome
from lexora_router.errors import UpstreamFailure, UpstreamTimeout
from lexora_router.policy.failures import verdict_of


class Balance:
    """Gets the attempt's endpoint from the call's lease, and reports how the attempt went.

    Above the timeouts: waiting for a slot is not the engine's silence, and a silent endpoint is judged by its silence.
    """

    def __init__(self, inner: Handler, *, clock: Callable[[], float]) -> None:
        self._inner = inner
        self._clock = clock

    async def __call__(self, call: Call, sink: Sink) -> None:
        """Serve one attempt."""
        lease = call.lease
        assert lease is not None
        call.endpoint = endpoint = await lease.next()
        receipt = call.receipt
        receipt.endpoint = endpoint.address
        receipt.attempts += 1
        if receipt.usage is not None:  # of an attempt whose answer was lost
            receipt.lost_tokens += receipt.usage.output_tokens
            receipt.usage = None
        receipt.attempted_at = now = self._clock()
        receipt.dispatched_at = receipt.dispatched_at or now
        try:
            await self._inner(call, sink)
        except UpstreamFailure as failure:
            if isinstance(failure, UpstreamTimeout) and not call.stream:
                receipt.late_attempts += 1
            lease.ended(verdict_of(failure).outcome, failure)
            raise
        except BaseException:
            lease.ended(Outcome.NEUTRAL)
            raise
        lease.ended(Outcome.GOOD)


def attempt(call: Call, sink: Sink) -> Awaitable[None]:
    """The innermost handler: try the call on its endpoint."""
    assert call.endpoint is not None
    return call.endpoint.attempt(call, sink)
