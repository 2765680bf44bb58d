"""Not every backend serves every operation."""

from collections.abc import Awaitable, Callable

from lexora_contract.port import Sink
from lexora_router.call import Call, Handler, Target
from lexora_router.errors import UnsupportedByBackend

Refusal = Callable[[Target, str], UnsupportedByBackend | None]


class ServedOperations:
    """Refuses an operation that the target's backend does not serve; `refusal` says why, by the path."""

    def __init__(self, inner: Handler, *, refusal: Refusal) -> None:
        self._inner = inner
        self._refusal = refusal

    def __call__(self, call: Call, sink: Sink) -> Awaitable[None]:
        """Serve the call; raises UnsupportedByBackend, before it waits for anything."""
        assert call.target is not None
        refused = self._refusal(call.target, call.path)
        if refused is not None:
            raise refused
        return self._inner(call, sink)
