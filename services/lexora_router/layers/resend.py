"""A kept connection that its engine closes just as it is used costs a call nothing."""

from lexora_contract.port import Sink
from lexora_router.call import Call, Handler
from lexora_router.errors import UpstreamUnreachable
from lexora_router.policy.failures import RetryScope, verdict_of


class Resend:
    """Sends the call once more, at the endpoint whose slot it holds, when that has read nothing. It is an attempt.

    Once in a call's life: what ends one connection after another is a request, not an idle time.
    """

    def __init__(self, inner: Handler) -> None:
        self._inner = inner

    async def __call__(self, call: Call, sink: Sink) -> None:
        """Serve the call; raises the second attempt's error."""
        try:
            await self._inner(call, sink)
        except UpstreamUnreachable as failure:
            if call.resent or verdict_of(failure).retry is not RetryScope.FREELY:
                raise
            assert call.lease is not None
            call.resent = True
            call.lease.stay()
            await self._inner(call, sink)
