"""Where a traced call's time goes: its waits for slots, and its attempts."""

from lexora_contract.port import Sink
from lexora_router.call import Call, Handler


class TraceQueue:
    """Notes that a call begins to wait for a slot of its target. Above admission."""

    def __init__(self, inner: Handler) -> None:
        self._inner = inner

    async def __call__(self, call: Call, sink: Sink) -> None:
        """Serve the call; a wait that ends in no attempt ends here."""
        tracing = call.tracing
        if tracing is None:
            await self._inner(call, sink)
            return
        tracing.waits()
        try:
            await self._inner(call, sink)
        except BaseException as error:  # whatever ends a wait is written down, and goes on
            tracing.gave_up(call, error)
            raise


class TraceAttempt:
    """Notes an attempt, and makes it the parent of what the engine does. Above the choice of an endpoint, which may wait."""

    def __init__(self, inner: Handler) -> None:
        self._inner = inner

    async def __call__(self, call: Call, sink: Sink) -> None:
        """Serve one attempt."""
        tracing = call.tracing
        if tracing is None:
            await self._inner(call, sink)
            return
        tracing.tries(call)
        try:
            await self._inner(call, sink)
        except BaseException as error:  # whatever ends an attempt is written down, and goes on
            tracing.tried(call, error)
            raise
        tracing.tried(call, None)
