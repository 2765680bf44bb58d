"""A router at the other end of a gRPC channel."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import structlog
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from lexora.v1.explain_pb2 import ExplainResponse
from lexora.v1.router_pb2 import GenerateResponse, StreamResponse
from lexora.v1.router_pb2_grpc import RouterServiceStub
from lexora_gateway.router_port import CallContext, Emit, RouterStatusError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from grpc.aio import UnaryUnaryMultiCallable

    from lexora.v1.classify_pb2 import ClassifyRequest, ClassifyResponse
    from lexora.v1.explain_pb2 import ExplainRequest
    from lexora.v1.health_pb2 import HealthRequest, HealthResponse
    from lexora.v1.models_pb2 import ListModelsRequest, ListModelsResponse
    from lexora.v1.recent_pb2 import RecentCallsRequest, RecentCallsResponse
    from lexora.v1.router_pb2 import GenerateRequest, StreamRequest
    from lexora.v1.stats_pb2 import GetStatsRequest, GetStatsResponse

T = TypeVar("T")
Request = TypeVar("Request")
Response = TypeVar("Response")

_PATH = "/lexora.v1.RouterService/"

_log = structlog.get_logger("lexora_gateway")

_MIB = 1024 * 1024
_DETAILS = "grpc-status-details-bin"
_HTTP_PORT = "--router names an HTTP port; it takes the router's gRPC port, which is usually 50051"
# Tells the router how long an engine's error body may be in a status.
_ERROR_BYTES = ("x-lexora-error-bytes", str(_MIB))
_METADATA_BYTES = 2 * _MIB
_UNREACHABLE: int = grpc.StatusCode.UNAVAILABLE.value[0]
_SHORTLY = any_pb2.Any()
_SHORTLY.Pack(RetryInfo(retry_delay=Duration(seconds=1)))
_DEADLINE: int = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
_TOO_LATE = any_pb2.Any()
_TOO_LATE.Pack(ErrorInfo(reason="DEADLINE_EXCEEDED", domain="lexora.spirrow"))


class GrpcRouter:
    """RouterPort over one grpc.aio channel. To be made inside the event loop that uses it.

    `target` is host:port or unix:path; `max_send_bytes` bounds a request (its body and 1 MiB around it),
    `max_receive_bytes` an answer. Without `credentials` the channel is not encrypted.
    """

    def __init__(
        self,
        target: str,
        *,
        max_send_bytes: int,
        max_receive_bytes: int = 256 * _MIB,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        options = _options(max_send_bytes, max_receive_bytes)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options)
        self._stub = RouterServiceStub(self._channel)
        # The stub's methods but for the serializer.
        self._generate = self._channel.unary_unary(_PATH + "Generate", _Outgoing.take, GenerateResponse.FromString)
        self._stream = self._channel.unary_stream(_PATH + "Stream", _Outgoing.take, StreamResponse.FromString)
        self._explain = self._channel.unary_unary(_PATH + "Explain", _Outgoing.take, ExplainResponse.FromString)

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._channel.close()

    def foresee(self, user: str, size: int) -> None:
        """Nothing: to ask would take as long as a call."""

    async def generate(self, request: GenerateRequest, context: CallContext) -> GenerateResponse:
        """RouterService.Generate."""
        return await _unary(self._generate, _Outgoing(request, context), context)

    async def stream(self, request: StreamRequest, context: CallContext, emit: Emit) -> None:
        """RouterService.Stream."""
        call = self._stream(_Outgoing(request, context), timeout=context.timeout, metadata=_metadata(context))
        try:
            while isinstance(message := await _answered(call, call.read()), StreamResponse):
                await emit(message)
        finally:
            # Does nothing to a call that has ended.
            call.cancel()

    async def classify(self, request: ClassifyRequest, context: CallContext) -> ClassifyResponse:
        """RouterService.Classify."""
        return await _unary(self._stub.Classify, request, context)

    async def list_models(self, request: ListModelsRequest, context: CallContext) -> ListModelsResponse:
        """RouterService.ListModels."""
        return await _unary(self._stub.ListModels, request, context)

    async def health(self, request: HealthRequest, context: CallContext) -> HealthResponse:
        """RouterService.Health."""
        return await _unary(self._stub.Health, request, context)

    async def explain(self, request: ExplainRequest, context: CallContext) -> ExplainResponse:
        """RouterService.Explain."""
        return await _unary(self._explain, _Outgoing(request, context), context)

    async def recent_calls(self, request: RecentCallsRequest, context: CallContext) -> RecentCallsResponse:
        """RouterService.RecentCalls."""
        return await _unary(self._stub.RecentCalls, request, context)

    async def get_stats(self, request: GetStatsRequest, context: CallContext) -> GetStatsResponse:
        """RouterService.GetStats."""
        return await _unary(self._stub.GetStats, request, context)


class _Outgoing:
    """A request until it is written. grpc keeps what it is given for as long as the call lasts: this is empty by then."""

    __slots__ = ("_body", "_request")

    def __init__(self, request: GenerateRequest | StreamRequest | ExplainRequest, context: CallContext) -> None:
        self._request: GenerateRequest | StreamRequest | ExplainRequest | None = request
        self._body = context.take_body()

    def take(self) -> bytes:
        """The request as bytes, once."""
        request, self._request = self._request, None
        body, self._body = self._body, b""
        assert request is not None
        if body:
            request.call.raw.body = body
        return request.SerializeToString()


async def _unary(method: UnaryUnaryMultiCallable[Request, Response], request: Request, context: CallContext) -> Response:
    call = method(request, timeout=context.timeout, metadata=_metadata(context))
    return await _answered(call, call)


async def _answered(call: Any, answer: Awaitable[T]) -> T:
    try:
        return await answer
    except grpc.aio.AioRpcError as error:
        raise RouterStatusError(_status(error.code(), error.details(), error.trailing_metadata())) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # grpc.aio raises the same for a call that the router ended with CANCELLED; nobody cancelled this task.
        raise RouterStatusError(_status(await call.code(), await call.details(), await call.trailing_metadata())) from None


def _status(code: grpc.StatusCode, message: str | None, metadata: Any) -> Status:
    for name, value in metadata or ():
        if name == _DETAILS:
            try:
                return Status.FromString(value)
            except DecodeError:
                break
    if code is grpc.StatusCode.UNAVAILABLE:
        _log.warning("router_unreachable", reason=_HTTP_PORT if "http1.x server" in (message or "") else message)
        message = "The gateway cannot reach its router; try again shortly."
        return Status(code=_UNREACHABLE, message=message, details=[_SHORTLY])
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        # The channel gave the call up before the router's own word for it came; its text is "Deadline Exceeded".
        message = "The call was not done within its deadline."
        return Status(code=_DEADLINE, message=message, details=[_TOO_LATE])
    number: int = code.value[0]
    return Status(code=number, message=message or "")


def _metadata(context: CallContext) -> tuple[tuple[str, str], ...]:
    return (*context.metadata, _ERROR_BYTES)


def _options(max_send_bytes: int, max_receive_bytes: int) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_send_message_length", max_send_bytes),
        ("grpc.max_receive_message_length", max_receive_bytes),
        # Long upstream errors travel whole in the trailing metadata.
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # A router that restarts is found again within two seconds instead of two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # An internal service: no proxy from the environment, no policy from DNS.
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),
    ]
