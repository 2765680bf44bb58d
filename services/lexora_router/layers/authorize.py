"""Which models and operations a principal may use. Above everything that a refused call must not cost or learn."""

from collections.abc import Awaitable

from lexora_contract.port import Sink
from lexora_router.call import AUTO, Call, Handler
from lexora_router.errors import InvalidRequest, ModelNotFound, PermissionDenied
from lexora_router.payload.one_model import with_one_model
from lexora_router.principal import Principal


class Authorize:
    """Lets a call through that its principal may make; raises PermissionDenied, ModelNotFound or InvalidRequest.

    A model that is not allowed looks like one that is not there. `default` is the model of calls that name none; None where
    calls have no model. For AUTO see where its model is chosen.
    """

    def __init__(self, inner: Handler, *, default: str | None) -> None:
        self._inner = inner
        self._default = default

    def __call__(self, call: Call, sink: Sink) -> Awaitable[None]:
        """Serve the call."""
        authorize(call, self._default)
        return self._inner(call, sink)


def authorize(call: Call, default: str | None) -> None:
    """Raise as the layer does; a call that goes on names one model, in its body as well."""
    principal = call.principal
    if not principal.may_do(call.path):
        raise PermissionDenied(f"This key may not use {call.path}.")
    if not principal.models or default is None:
        return
    named = bool(call.model)
    if not named:
        call.model = default_of(principal, default)
    elif call.model != AUTO and not principal.may_use(call.model):
        raise ModelNotFound(call.model)
    if call.body:
        call.body = with_one_model(call.content_type, call.body, call.model, named=named)


def default_of(principal: Principal, default: str) -> str:
    """The model of a call that names none; raises InvalidRequest where its principal may not use it."""
    if not principal.models or (default and principal.may_use(default)):
        return default
    raise InvalidRequest("No model is named; this key needs one of those that GET /v1/models lists.", "model")
