"""The client's own deadline bounds everything that the router does for a call."""

import asyncio

from lexora_router.call import Call, Emit, Handler
from lexora_router.errors import DeadlineExceeded


class Deadline:
    """Ends the call with DeadlineExceeded when its deadline passes; the attempt under way is cancelled."""

    def __init__(self, inner: Handler) -> None:
        self._inner = inner

    async def __call__(self, call: Call, emit: Emit) -> None:
        """Serve the call until its deadline."""
        if call.deadline is None:
            return await self._inner(call, emit)
        try:
            async with asyncio.timeout_at(call.deadline) as limit:
                await self._inner(call, emit)
        except TimeoutError:
            if not limit.expired():
                raise
            allowed = call.deadline - call.started
            raise DeadlineExceeded(f"The call was not done within its deadline of {allowed:.3g} s.") from None
