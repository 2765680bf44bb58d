"""From the model that is asked to the target that serves it."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from lexora_contract.port import Sink
from lexora_router.call import AUTO, Call, Handler, Target


class Routes(Protocol):
    """Which backends serve which model."""

    def find(self, model: str) -> tuple[Target, ...]:
        """Targets of a model in order of preference, by what is known now; empty when no backend serves it."""

    async def discover(self, model: str) -> tuple[Target, ...]:
        """Ask the backends again; raises ModelNotFound."""


class Resolve:
    """Gives the call its targets; raises ModelNotFound when no backend serves the model.

    A call for AUTO is shown to `auto` first, which may name another model.
    """

    def __init__(self, inner: Handler, *, routes: Routes, auto: Callable[[Call], Awaitable[None]] | None = None) -> None:
        self._inner = inner
        self._routes = routes
        self._auto = auto

    def __call__(self, call: Call, sink: Sink) -> Awaitable[None]:
        """Find the targets, then go on with the first."""
        known = () if call.model == AUTO and self._auto is not None else self._routes.find(call.model)
        return self._serve(call, sink, known) if known else self._search(call, sink)

    async def _search(self, call: Call, sink: Sink) -> None:
        if call.model == AUTO and self._auto is not None:
            await self._auto(call)
        await self._serve(call, sink, self._routes.find(call.model) or await self._routes.discover(call.model))

    def _serve(self, call: Call, sink: Sink, targets: tuple[Target, ...]) -> Awaitable[None]:
        call.targets = targets
        call.target = target = targets[0]
        call.receipt.backend = target.backend
        call.receipt.model = target.model
        return self._inner(call, sink)
