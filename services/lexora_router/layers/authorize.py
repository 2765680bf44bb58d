"""Which models and operations a principal may use. Above everything that a refused call must not cost or learn."""

from collections.abc import Awaitable

from lexora_contract.port import Sink
from lexora_router.call import AUTO, Call, Handler
from lexora_router.errors import ModelNotFound, PermissionDenied


class Authorize:
    """Lets a call through that its principal may make; raises PermissionDenied, or ModelNotFound.

    A model that is not allowed looks like one that is not there. For AUTO see where its model is chosen.
    """

    def __init__(self, inner: Handler) -> None:
        self._inner = inner

    def __call__(self, call: Call, sink: Sink) -> Awaitable[None]:
        """Serve the call."""
        principal = call.principal
        if not principal.may_do(call.path):
            raise PermissionDenied(f"This key may not use {call.path}.")
        if call.model != AUTO and not principal.may_use(call.model):
            raise ModelNotFound(call.model)
        return self._inner(call, sink)
