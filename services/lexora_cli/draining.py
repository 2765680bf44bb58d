"""A router port that can be emptied: no new calls, patience with those under way, and a proper error for what is left."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from lexora.v1 import classify_pb2, explain_pb2, health_pb2, models_pb2, recent_pb2, router_pb2, stats_pb2
from lexora.v1.receipt_pb2 import Receipt
from lexora_gateway.router_port import CallContext, Emit, RouterPort, RouterStatusError
from lexora_router.edge.status import status_of
from lexora_router.errors import Draining

_Answer = TypeVar("_Answer")
_Given = ParamSpec("_Given")


class DrainingPort:
    """Passes calls on to `inner` and knows which are under way."""

    def __init__(self, inner: RouterPort) -> None:
        self._inner = inner
        self._tasks: set[asyncio.Task[Any]] = set()
        self._aborted: set[asyncio.Task[Any]] = set()
        self._refusing = False
        self._idle = asyncio.Event()

    @property
    def active(self) -> int:
        """Calls under way."""
        return len(self._tasks)

    async def drain(self, seconds: float) -> None:
        """Refuse new calls; return when those under way are done or `seconds` have passed."""
        self._refusing = True
        if not self._tasks:
            return
        self._idle.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass  # the caller aborts what is left

    def abort(self) -> None:
        """End the calls under way with an error that says why, so that their clients get an end of their answers."""
        for task in self._tasks - self._aborted:
            self._aborted.add(task)
            task.cancel()

    def foresee(self, user: str, size: int) -> None:
        """What would be refused whatever its body says."""
        if self._refusing:
            raise _refusal()
        self._inner.foresee(user, size)

    async def generate(self, request: router_pb2.GenerateRequest, context: CallContext) -> router_pb2.GenerateResponse:
        """One request, one whole answer."""
        return await self._counted(self._inner.generate, request, context)

    async def stream(self, request: router_pb2.StreamRequest, context: CallContext, emit: Emit) -> None:
        """One request; each piece of the answer goes to `emit` as it is made."""
        await self._counted(self._inner.stream, request, context, emit)

    async def classify(self, request: classify_pb2.ClassifyRequest, context: CallContext) -> classify_pb2.ClassifyResponse:
        """Which model fits a task."""
        return await self._counted(self._inner.classify, request, context)

    async def list_models(self, request: models_pb2.ListModelsRequest, context: CallContext) -> models_pb2.ListModelsResponse:
        """The models that can be asked."""
        return await self._counted(self._inner.list_models, request, context)

    async def health(self, request: health_pb2.HealthRequest, context: CallContext) -> health_pb2.HealthResponse:
        """State of the router and of each backend."""
        return await self._counted(self._inner.health, request, context)

    async def explain(self, request: explain_pb2.ExplainRequest, context: CallContext) -> explain_pb2.ExplainResponse:
        """Where a call would go and why."""
        return await self._counted(self._inner.explain, request, context)

    async def recent_calls(
        self, request: recent_pb2.RecentCallsRequest, context: CallContext
    ) -> recent_pb2.RecentCallsResponse:
        """The calls that finished last."""
        return await self._counted(self._inner.recent_calls, request, context)

    async def get_stats(self, request: stats_pb2.GetStatsRequest, context: CallContext) -> stats_pb2.GetStatsResponse:
        """Counters and gauges since the start."""
        return await self._counted(self._inner.get_stats, request, context)

    async def _counted(
        self, method: Callable[_Given, Awaitable[_Answer]], *given: _Given.args, **named: _Given.kwargs
    ) -> _Answer:
        if self._refusing:
            raise _refusal()
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            return await method(*given, **named)
        except asyncio.CancelledError:
            # A client that left at the same moment has cancelled the task once more: then nobody needs an answer.
            if task in self._aborted and task.uncancel() == 0:
                raise _refusal() from None
            raise
        finally:
            self._tasks.discard(task)
            self._aborted.discard(task)
            if not self._tasks:
                self._idle.set()


def _refusal() -> RouterStatusError:
    error = Draining("The gateway is shutting down; try another one.")
    return RouterStatusError(status_of(error, Receipt(), max_body=0))
