"""What the facade needs of a router, in lexora.v1 messages; in process and over gRPC alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lexora.v1.router_pb2 import GenerateRequest, GenerateResponse, StreamRequest, StreamResponse

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status

    from lexora.v1.classify_pb2 import ClassifyRequest, ClassifyResponse
    from lexora.v1.explain_pb2 import ExplainRequest, ExplainResponse
    from lexora.v1.health_pb2 import HealthRequest, HealthResponse
    from lexora.v1.models_pb2 import ListModelsRequest, ListModelsResponse
    from lexora.v1.recent_pb2 import RecentCallsRequest, RecentCallsResponse
    from lexora.v1.stats_pb2 import GetStatsRequest, GetStatsResponse

Emit = Callable[[StreamResponse], Awaitable[None]]


@dataclass(slots=True)
class CallContext:
    """What surrounds a call.

    `metadata` is gRPC metadata (traceparent, tracestate, x-forwarded-for); `timeout` is the seconds left for the whole call,
    None for no limit. `body` is that of the request's raw call, beside the message and not in it, because each message
    that it would be put into would hold another copy for as long as the call lasts.
    """

    metadata: tuple[tuple[str, str], ...] = ()
    timeout: float | None = None
    body: bytes = b""
    peer = ""  # no address: a router in this process believes what it is given

    def take_body(self) -> bytes:
        """The body, which is given away: what it waits in from now on is the only one to hold it."""
        body, self.body = self.body, b""
        return body


class RouterStatusError(Exception):
    """A call ended in a google.rpc.Status.

    Its details are Any messages of ErrorInfo, BadRequest, RetryInfo, QuotaFailure, lexora.v1.UpstreamError and
    lexora.v1.Receipt.
    """

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


class RouterPort(Protocol):
    """A router. Every method raises RouterStatusError; cancelling the task that awaits one cancels the call."""

    def foresee(self, user: str, size: int) -> None:
        """Raise RouterStatusError for a call that would be refused whatever its body of `size` bytes says.

        For the time before the body is read; `user` is empty while nobody is named. A router elsewhere is not asked.
        """
        ...

    async def generate(self, request: GenerateRequest, context: CallContext) -> GenerateResponse:
        """One request, one whole answer."""
        ...

    async def stream(self, request: StreamRequest, context: CallContext, emit: Emit) -> None:
        """One request; each piece of the answer goes to `emit` as it is made."""
        ...

    async def classify(self, request: ClassifyRequest, context: CallContext) -> ClassifyResponse:
        """Which model fits a task."""
        ...

    async def list_models(self, request: ListModelsRequest, context: CallContext) -> ListModelsResponse:
        """The models that can be asked."""
        ...

    async def health(self, request: HealthRequest, context: CallContext) -> HealthResponse:
        """State of the router and of each backend."""
        ...

    async def explain(self, request: ExplainRequest, context: CallContext) -> ExplainResponse:
        """Where a call would go and why."""
        ...

    async def recent_calls(self, request: RecentCallsRequest, context: CallContext) -> RecentCallsResponse:
        """The calls that finished last."""
        ...

    async def get_stats(self, request: GetStatsRequest, context: CallContext) -> GetStatsResponse:
        """Counters and gauges since the start."""
        ...
