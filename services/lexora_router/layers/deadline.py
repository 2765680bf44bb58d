"""The client's own deadline bounds everything that the router does for a call."""

from collections.abc import Awaitable

from lexora_contract.port import Sink
from lexora_router.call import Call, Handler
from lexora_router.errors import DeadlineExceeded
from lexora_router.timers import Expiry


class Deadline:
    """Ends the call with DeadlineExceeded when its deadline passes; the attempt under way is cancelled."""

    def __init__(self, inner: Handler) -> None:
        self._inner = inner

    def __call__(self, call: Call, sink: Sink) -> Awaitable[None]:
        """Serve the call until its deadline."""
        return self._inner(call, sink) if call.deadline is None else self._within(call.deadline, call, sink)

    async def _within(self, deadline: float, call: Call, sink: Sink) -> None:
        try:
            with Expiry(deadline) as limit:
                await self._inner(call, sink)
        except TimeoutError:
            if not limit.expired:
                raise
            allowed = deadline - call.started
            raise DeadlineExceeded(f"The call was not done within its deadline of {allowed:.3g} s.") from None
