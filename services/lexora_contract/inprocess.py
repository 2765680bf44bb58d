"""The facade's router port onto a router in the same process: the same messages, deadlines and errors, and no socket."""

from collections.abc import Awaitable
from typing import TypeVar

from lexora.v1 import classify_pb2, explain_pb2, health_pb2, models_pb2, recent_pb2, router_pb2, stats_pb2
from lexora_gateway.router_port import CallContext, Emit, RouterStatusError
from lexora_router.edge.service import RouterService
from lexora_router.edge.status import StatusError

# In process nothing has to fit into metadata: an engine's error arrives whole.
_WHOLE_ERRORS = (("x-lexora-error-bytes", str(1024 * 1024)),)

_Answer = TypeVar("_Answer")


class InProcessRouter:
    """A RouterPort that calls the service directly."""

    def __init__(self, service: RouterService) -> None:
        self._service = service

    def foresee(self, user: str, size: int) -> None:
        """What would be refused whatever its body says."""
        try:
            self._service.foresee(user, size)
        except StatusError as error:
            raise RouterStatusError(error.status) from None

    async def generate(self, request: router_pb2.GenerateRequest, context: CallContext) -> router_pb2.GenerateResponse:
        """One request, one whole answer."""
        return await _told(self._service.generate(request, _with_whole_errors(context)))

    async def stream(self, request: router_pb2.StreamRequest, context: CallContext, emit: Emit) -> None:
        """One request; each piece of the answer goes to `emit` as it is made."""
        await _told(self._service.stream(request, _with_whole_errors(context), emit))

    async def classify(self, request: classify_pb2.ClassifyRequest, context: CallContext) -> classify_pb2.ClassifyResponse:
        """Which model fits a task."""
        return await _told(self._service.classify(request, context))

    async def list_models(self, request: models_pb2.ListModelsRequest, context: CallContext) -> models_pb2.ListModelsResponse:
        """The models that can be asked."""
        return await _told(self._service.list_models(request, context))

    async def health(self, request: health_pb2.HealthRequest, context: CallContext) -> health_pb2.HealthResponse:
        """State of the router and of each backend."""
        return await _told(self._service.health(request, context))

    async def explain(self, request: explain_pb2.ExplainRequest, context: CallContext) -> explain_pb2.ExplainResponse:
        """Where a call would go and why."""
        return await _told(self._service.explain(request, context))

    async def recent_calls(
        self, request: recent_pb2.RecentCallsRequest, context: CallContext
    ) -> recent_pb2.RecentCallsResponse:
        """The calls that finished last."""
        return await _told(self._service.recent_calls(request, context))

    async def get_stats(self, request: stats_pb2.GetStatsRequest, context: CallContext) -> stats_pb2.GetStatsResponse:
        """Counters and gauges since the start."""
        return await _told(self._service.get_stats(request, context))


def _with_whole_errors(context: CallContext) -> CallContext:
    return CallContext(context.metadata + _WHOLE_ERRORS, context.timeout, context.take_body())


async def _told(answer: Awaitable[_Answer]) -> _Answer:
    try:
        return await answer
    except StatusError as error:
        raise RouterStatusError(error.status) from error
