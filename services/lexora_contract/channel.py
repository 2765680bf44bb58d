"""A router at the other end of a gRPC channel."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from lexora.v1 import receipt_pb2
from lexora.v1.router_pb2 import StreamRequest, StreamResponse
from lexora_contract.access import FACADE
from lexora_contract.answer import Receipt
from lexora_contract.messages import fill_call, head_of, receipt_of, reply_of
from lexora_contract.port import CallContext, CallFailed, ClientSink, Gate, Options, RawCall, Send
from lexora_contract.rpcs import ROUTER, Request, Response, Rpc
from lexora_contract.status import failed_of

T = TypeVar("T")
# Gets an event and its reason.
Log = Callable[[str, str], None]

_MIB = 1024 * 1024
_DETAILS = "grpc-status-details-bin"
_HTTP_PORT = "--router names an HTTP port; it takes the router's gRPC port, which is usually 50051"
# Says to the router how long an engine's error body may be in a status.
_ERROR_BYTES = ("x-lexora-error-bytes", str(_MIB))
_METADATA_BYTES = 2 * _MIB


def _unlogged(_event: str, _reason: str) -> None:
    """Nothing."""


class _Link:
    """One channel, and how many calls are under way on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.stream: Any = channel.unary_stream(f"/{ROUTER}/Stream", _Outgoing.take, StreamResponse.FromString)
        self._methods: dict[str, Any] = {}
        self._calls = 0
        self._unused = asyncio.Event()
        self._unused.set()

    def method(self, rpc: Rpc[Any, Any]) -> Any:
        """What calls this rpc."""
        found = self._methods.get(rpc.path)
        if found is None:
            found = self._methods[rpc.path] = self.channel.unary_unary(rpc.path, _Outgoing.take, rpc.response.FromString)
        return found

    def __enter__(self) -> "_Link":
        """A call begins."""
        self._calls += 1
        if self._calls == 1:
            self._unused.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._calls -= 1
        if not self._calls:
            self._unused.set()

    async def retire(self) -> None:
        """Close the channel when its calls are over."""
        await self._unused.wait()
        await self.channel.close()


class ChannelRouter:
    """RouterPort over a grpc.aio channel. To be made inside the event loop that uses it.

    `target` is host:port or unix:path; `max_send_bytes` bounds a request (its body and 1 MiB around it),
    `max_receive_bytes` an answer. Without `credentials` the channel is not encrypted. `facade_key` proves to the router
    that this is its facade. `log` gets the reason for which the
    router cannot be reached, whenever that is so.
    """

    def __init__(
        self,
        target: str,
        *,
        max_send_bytes: int,
        max_receive_bytes: int = 256 * _MIB,
        credentials: grpc.ChannelCredentials | None = None,
        facade_key: str = "",
        log: Log = _unlogged,
    ) -> None:
        self._target = target
        self._options = _options(max_send_bytes, max_receive_bytes)
        self._link = self._linked(credentials)
        self._retiring: dict[_Link, asyncio.Task[None]] = {}
        self._own = (_ERROR_BYTES, (FACADE, facade_key)) if facade_key else (_ERROR_BYTES,)
        self._log = log

    def _linked(self, credentials: grpc.ChannelCredentials | None) -> _Link:
        if credentials is None:
            return _Link(grpc.aio.insecure_channel(self._target, self._options))
        return _Link(grpc.aio.secure_channel(self._target, credentials, self._options))

    def renew(self, credentials: grpc.ChannelCredentials) -> None:
        """Make the calls from here on with other credentials; those under way go on as they are.

        That takes another channel: those of grpcio keep what they were made with.
        """
        old, self._link = self._link, self._linked(credentials)
        self._retiring[old] = task = asyncio.create_task(old.retire(), name="lexora-old-channel")
        task.add_done_callback(lambda _: self._retiring.pop(old, None))

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        retiring = dict(self._retiring)
        for link in (self._link, *retiring):
            await link.channel.close()
        await asyncio.gather(*retiring.values())

    async def foresee(self, rpc: Rpc[Any, Any], options: Options, context: CallContext, size: int) -> str:
        """Nothing: to ask would take as long as a call."""
        return ""

    async def unary(self, rpc: Rpc[Request, Response], request: Request, context: CallContext) -> Response:
        """Ask one thing, get one answer."""
        outgoing = _Outgoing(request, context.take_body())
        with self._link as link:
            call = link.method(rpc)(outgoing, timeout=context.timeout, metadata=(*context.metadata, *self._own))
            response: Response = await self._answered(call, call)
            return response

    async def relay(self, call: RawCall, context: CallContext, sink: ClientSink) -> None:
        """Serve one call in the engine's own bytes."""
        incoming, gate, request = _Incoming(sink), Gate(), StreamRequest()
        fill_call(request.call, call)
        context.flow.attach(gate)
        try:
            await self._messages(_Outgoing(request, call.take_body()), context, incoming.take, gate)
        finally:
            context.flow.detach()

    async def stream(self, request: StreamRequest, context: CallContext, send: Send) -> None:
        """A call in typed form, streamed."""
        gate = Gate()
        context.flow.attach(gate)
        try:
            await self._messages(_Outgoing(request, context.take_body()), context, send, gate)
        finally:
            context.flow.detach()

    async def _messages(self, request: "_Outgoing", context: CallContext, take: Send, gate: Gate) -> None:
        with self._link as link:
            call = link.stream(request, timeout=context.timeout, metadata=(*context.metadata, *self._own))
            try:
                while isinstance(message := await self._answered(call, call.read()), StreamResponse):
                    await take(message)
                    await gate.passed()
            finally:
                # Does nothing to a call that has ended.
                call.cancel()

    async def _answered(self, call: Any, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except grpc.aio.AioRpcError as error:
            raise _failed(error.code(), error.details(), error.trailing_metadata(), self._log) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # grpc.aio raises the same for a call whose channel was closed, without any cancellation of this task.
            raise _failed(await call.code(), await call.details(), await call.trailing_metadata(), self._log) from None


class _Incoming:
    """Gives the messages of a stream to a sink."""

    __slots__ = ("_receipt", "_sink")

    def __init__(self, sink: ClientSink) -> None:
        self._sink = sink
        self._receipt: Receipt | None = None

    async def take(self, message: StreamResponse) -> None:
        match message.WhichOneof("event"):
            case "delta":
                self._sink.frames(message.delta.frames)
            case "started":
                self._note(message.started.receipt, streams=True)
                if message.started.HasField("head"):
                    self._sink.head(head_of(message.started.head))
            case "completed":
                whole = message.completed.HasField("reply")
                self._note(message.completed.receipt, streams=not whole)
                if whole:
                    self._sink.reply(reply_of(message.completed.reply))

    def _note(self, receipt: receipt_pb2.Receipt, *, streams: bool) -> None:
        known = self._receipt
        self._receipt = receipt_of(receipt, known)
        if known is None:
            self._sink.accepted(self._receipt, streams=streams)


class _Outgoing:
    """A request until it is written. grpc keeps what it is given for as long as the call lasts: this is empty by then."""

    __slots__ = ("_body", "_request")

    def __init__(self, request: Any, body: bytes) -> None:
        self._request: Any = request
        self._body = body

    def take(self) -> bytes:
        """The request as bytes, once."""
        request, self._request = self._request, None
        body, self._body = self._body, b""
        if body:
            request.call.raw.body = body
        data: bytes = request.SerializeToString()
        return data


def _failed(code: grpc.StatusCode, message: str | None, metadata: Any, log: Log) -> CallFailed:
    for name, value in metadata or ():
        if name == _DETAILS:
            try:
                return failed_of(Status.FromString(value))
            except DecodeError:
                break
    if code is grpc.StatusCode.UNAVAILABLE:
        log("router_unreachable", _HTTP_PORT if "http1.x server" in (message or "") else message or "")
        message = "The gateway cannot reach its router; try again shortly."
        return CallFailed("NO_HEALTHY_ENDPOINT", message, retry_after=1.0)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        # The channel gave the call up before the router's own answer to that came; its text is "Deadline Exceeded".
        return CallFailed("DEADLINE_EXCEEDED", "The call was not done within its deadline.")
    return failed_of(Status(code=code.value[0], message=message or ""))


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
