"""When the model's own target cannot answer, the next one is asked. Never silently."""

from lexora_contract.answer import Hop, Receipt
from lexora_contract.port import Sink
from lexora_router.call import Call, Handler
from lexora_router.errors import RouterError, UnsupportedByBackend
from lexora_router.policy.failures import goes_on


class Fallback:
    """Asks the route's targets in order, until one answers or the client has seen something."""

    def __init__(self, inner: Handler, *, on_rate_limit: bool) -> None:
        self._inner = inner
        self._on_rate_limit = on_rate_limit

    async def __call__(self, call: Call, sink: Sink) -> None:
        """Serve the call; raises the error of the last target that has what is asked for."""
        earlier: RouterError | None = None
        targets = call.targets if call.fallback_allowed else call.targets[:1]
        for place, target in enumerate(targets, 1):
            after = targets[place] if place < len(targets) else None
            call.target, call.elsewhere = target, after is not None
            call.receipt.backend, call.receipt.model = target.backend, target.model
            try:
                await self._inner(call, sink)
                return
            except RouterError as error:
                lacks = isinstance(error, UnsupportedByBackend)
                if after is None or call.begun or not goes_on(error, on_rate_limit=self._on_rate_limit):
                    if lacks and earlier is not None:
                        raise earlier from None
                    raise
                earlier = earlier if lacks else error.with_traceback(None)  # with it the error would keep this frame alive
                call.receipt.hops += (Hop(target.backend, after.backend, error.reason),)
                _start_over(call.receipt)


def _start_over(receipt: Receipt) -> None:
    """Of an answer that no client has seen nothing may count for the next one: not that it began, nor what it used."""
    receipt.lost_tokens += receipt.made
    receipt.endpoint = ""
    receipt.usage = None
    receipt.finish_reasons = ()
    receipt.events = 0
    receipt.first_event_at = 0.0
