"""Which models and operations a principal may use. Above everything that a refused call must not cost or learn."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lexora_contract.port import Sink
from lexora_router.call import AUTO, Call, Handler
from lexora_router.errors import InvalidRequest, ModelNotFound, PermissionDenied
from lexora_router.payload.one_model import with_one_model
from lexora_router.principal import Principal


@dataclass(frozen=True, slots=True)
class Authorization:
    """What callers may do. `default` is the model of calls that name none, `salt` gives that of a tenant's prompts."""

    default: str
    salt: Callable[[str], str]

    def check(self, call: Call, *, models: bool = True) -> None:
        """Let a call go on that its principal may make; raises PermissionDenied, ModelNotFound or InvalidRequest.

        A model that is not allowed looks like one that is not there. One that is, is the only one that the body names.
        Without `models` calls have none. For AUTO see where its model is chosen.
        """
        principal = call.principal
        call.cache_salt = self.salt(call.tenant)
        if not principal.may_do(call.path):
            raise PermissionDenied(f"This key may not use {call.path}.")
        if not principal.models or not models:
            return
        named = bool(call.model)
        if not named:
            call.model = default_of(principal, self.default)
        elif call.model != AUTO and not principal.may_use(call.model):
            raise ModelNotFound(call.model)
        if call.body:
            call.body = with_one_model(call.content_type, call.body, call.model, named=named)


class Authorize:
    """Lets calls through that their principals may make; with or without `models`."""

    def __init__(self, inner: Handler, *, authorization: Authorization, models: bool = True) -> None:
        self._inner = inner
        self._authorization = authorization
        self._models = models

    def __call__(self, call: Call, sink: Sink) -> Awaitable[None]:
        """Serve the call; raises as the authorization does."""
        self._authorization.check(call, models=self._models)
        return self._inner(call, sink)


def default_of(principal: Principal, default: str) -> str:
    """The model of a call that names none; raises InvalidRequest where its principal may not use it."""
    if not principal.models or (default and principal.may_use(default)):
        return default
    raise InvalidRequest("No model is named; this key needs one of those that GET /v1/models lists.", "model")
