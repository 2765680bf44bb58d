"""The service on the gRPC wire: contexts, trailing metadata, health, reflection and channelz."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NoReturn, Protocol, TypeVar
from urllib.parse import unquote

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from lexora.v1 import (
    receipt_pb2,
    router_pb2,
)
from lexora_contract.access import certificate_names
from lexora_contract.answer import hops_text
from lexora_contract.enums import word
from lexora_contract.messages import receipt_message, receipt_of
from lexora_contract.plain import hops_of, resumed_name
from lexora_contract.port import CallContext, CallFailed
from lexora_contract.rpcs import SERVICES, STREAM, UNARY, Rpc
from lexora_contract.status import status_of
from lexora_contract.words import auto_text, duration
from lexora_router.edge.arriving_requests import ARRIVING_SHARE, ArrivingRequests
from lexora_router.edge.call_failed import failed
from lexora_router.edge.grpc_decoding import UndecodableRequests
from lexora_router.edge.grpc_reading import Parted
from lexora_router.edge.services import Services
from lexora_router.edge.write_limit import WriteLimit
from lexora_router.errors import ClientStalled
from lexora_router.machine import usable_descriptors, usable_memory

MAX_METADATA_BYTES = 2 * 1024 * 1024
# Of an engine's own error, what fits into the metadata that a gRPC client accepts by default (8 KiB), beside the rest; a
# client that accepts more says so.
DEFAULT_ERROR_BYTES = 3072
MAX_ERROR_BYTES = 1024 * 1024
ERROR_BYTES = "x-lexora-error-bytes"
# Clients keep long calls alive with pings, some every second; one that pings faster for long is sent away (GOAWAY
# "too_many_pings"), as gRPC does by default from 5 minutes down.
MIN_PING_INTERVAL_MS = 500
# Of the file descriptors, an eighth may be connections of gRPC clients.
CONNECTIONS_SHARE = 8
# Streams of one connection. A call whose message does not come is not seen here, takes no slot, and 3 KiB of memory; a façade
# in front of a router has all its calls on one connection.
MAX_STREAMS = 10_000
# A client gives up at its deadline by itself; the router ends a call this much before, so that its status, which says
# what was waited for, still arrives: a share of the time there is, but no more than so many seconds.
RETURN_SHARE = 0.1
RETURN_SECONDS = 0.05
# The status for a client that takes nothing waits behind what was not taken; it arrives once that is read.
STALLED_SECONDS = 0.1
ELSEWHERE = "This is served at the port for operators (server.admin_grpc_port)."

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_CHANNELZ = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name

_Answer = TypeVar("_Answer")
_Context = grpc.aio.ServicerContext[Any, Any]


class Servicer:
    """Adapts a service to grpc.aio: each rpc is served by the method of its name."""

    def __init__(self, service: Services, write_timeout: float, wire: "Wire | None" = None) -> None:
        self._service = service
        self._write_timeout = write_timeout
        self._wire = wire or _wire

    def add_to(self, server: grpc.aio.Server, services: Sequence[str] = SERVICES) -> None:
        """Serve the rpcs of these services, as generated code would, and say of others where they are.

        Raises AttributeError for an rpc that has no method.
        """
        made = {rpc: grpc.unary_unary_rpc_method_handler(self.serving(rpc), *_coders(rpc)) for rpc in UNARY}
        made[STREAM] = grpc.unary_stream_rpc_method_handler(self.serving(STREAM), *_coders(STREAM))
        for name in SERVICES:
            handlers = {rpc.name: made[rpc] if name in services else _elsewhere(rpc) for rpc in made if rpc.service == name}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
            server.add_registered_method_handlers(name, handlers)

    def serving(self, rpc: Rpc[Any, Any]) -> Any:
        """What serves an rpc: `await ...(request, context)`, with a request that is `Parted` where it may be raw."""
        if rpc is STREAM:
            return self._stream
        serve: Callable[[Any, CallContext], Awaitable[Any]] = self._service.serving(rpc)

        async def answer(request: Any, context: _Context) -> Any:
            message, wire = (request.message, self._wire(context, request)) if rpc.raw else (request, self._wire(context))
            response = await _served(context, serve(message, wire))
            if rpc.receipt:
                context.set_trailing_metadata(_trailing(response.receipt))
            return response

        return answer

    async def _stream(self, request: Parted[router_pb2.StreamRequest], context: _Context) -> None:
        last = receipt_pb2.Receipt()
        limit = WriteLimit(self._write_timeout)

        async def send(message: router_pb2.StreamResponse) -> None:
            nonlocal last
            if not message.HasField("delta"):
                last = message.completed.receipt if message.HasField("completed") else message.started.receipt
            try:
                with limit:
                    await context.write(message)
            except grpc.aio.InternalError:
                # The client is gone, and this task is about to be cancelled: that is no fault of the engine.
                raise asyncio.CancelledError from None

        try:
            await _served(context, self._service.stream(request.message, self._wire(context, request), send))
        except asyncio.CancelledError:
            # A client that left at the same moment has cancelled the task once more.
            if not limit.over or limit.task.uncancel() > 0:
                raise
        finally:
            limit.stop()
        if limit.over:
            await self._stalled(context, last)
        context.set_trailing_metadata(_trailing(last))

    async def _stalled(self, context: _Context, receipt: receipt_pb2.Receipt) -> None:
        error = ClientStalled(f"The client took nothing of the answer for {self._write_timeout:g} s (server.write_timeout).")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STALLED_SECONDS):
                await _refused(context, failed(error, receipt_of(receipt)))


def _elsewhere(rpc: Rpc[Any, Any]) -> Any:
    async def refuse(_request: Any, context: _Context) -> None:
        await _refused(context, CallFailed("UNIMPLEMENTED", ELSEWHERE))

    return grpc.unary_unary_rpc_method_handler(refuse, *_coders(rpc))


def _coders(rpc: Rpc[Any, Any]) -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
    return rpc.request.FromString, rpc.response.SerializeToString


async def _served(context: _Context, answer: Awaitable[_Answer]) -> _Answer:
    try:
        return await answer
    except CallFailed as error:
        # Refused below: grpc keeps the exception that `abort` raises, and with it the one it was raised in, and all its frames.
        end = error
        end.__traceback__ = end.__cause__ = end.__context__ = None
    return await _refused(context, end)


async def _refused(context: _Context, end: CallFailed) -> NoReturn:
    status = status_of(end, max_body=_error_bytes(context))
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()), *_hints(end)))
    try:
        await context.abort(_CODES[status.code], status.message)
    except grpc.aio.InternalError:
        pass  # the client left while it was refused
    else:
        raise AssertionError("abort raises")
    raise asyncio.CancelledError


async def _refuse_undecodable(service: Services, wire: "Wire", method: str, context: _Context) -> None:
    await _served(context, service.refuse_undecodable(method, wire(context)))


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def _wire(context: _Context, request: Parted[Any] | None = None) -> CallContext:
    pairs = context.invocation_metadata() or ()
    remaining = context.time_remaining()
    if remaining is not None:
        remaining -= min(remaining * RETURN_SHARE, RETURN_SECONDS)
    metadata = tuple((key, value) for key, value in pairs if isinstance(value, str))
    return CallContext(metadata, remaining, b"" if request is None else request.take_body(), _address(context.peer()))


class Wire(Protocol):
    """What surrounds a call at this wire."""

    def __call__(self, context: _Context, request: Parted[Any] | None = None, /) -> CallContext:
        """The call's surroundings, and its body."""
        ...


def _certified(context: _Context, request: Parted[Any] | None = None) -> CallContext:
    """The same where a client shows a certificate."""
    wire, shown = _wire(context, request), context.auth_context()
    wire.certificate = _names(*(tuple(shown.get(kind, ())) for kind in ("peer_dns", "peer_uri", "peer_email")))
    return wire


def _believed(service: Services, wire: Wire, context: _Context, request: Parted[Any] | None = None) -> CallContext:
    """The same without what its sender may not say of others."""
    found, forwarders = wire(context, request), service.guard.serving.forwarders
    return found if forwarders is None else forwarders.believed(found)


@lru_cache(1024)
def _names(*names: tuple[bytes, ...]) -> tuple[str, ...]:
    return certificate_names(*([name.decode("utf-8", "replace") for name in kind] for kind in names))


@lru_cache(4096)
def _address(peer: str) -> str:
    """The address in gRPC's `ipv4:10.0.0.1:5000` or `ipv6:%5B::1%5D:5000`; empty of a unix socket."""
    kind, _, rest = peer.partition(":")
    return unquote(rest).rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""


def _trailing(receipt: receipt_pb2.Receipt) -> tuple[tuple[str, str], ...]:
    pairs = (
        ("x-request-id", receipt.request_id),
        ("x-lexora-backend", receipt.backend),
        ("x-lexora-attempts", str(receipt.attempts)),
    )
    auto = _auto(receipt.auto) if receipt.HasField("auto") else ""
    fallback, resumed = hops_text(hops_of(receipt.hops)), resumed_name(receipt.resume_method)
    unusual = (("x-lexora-fallback", fallback), ("x-lexora-resumed", resumed), ("x-lexora-model", auto))
    return (*pairs, *(pair for pair in unusual if pair[1]), *_limits(receipt.rate_limit))


def _limits(state: receipt_pb2.RateLimitState) -> Iterator[tuple[str, str]]:
    """Where the client stands, in the words of OpenAI's headers."""
    for kind, bucket in (("requests", state.requests), ("tokens", state.tokens)):
        if bucket.limit:
            yield f"x-ratelimit-limit-{kind}", str(bucket.limit)
            yield f"x-ratelimit-remaining-{kind}", str(bucket.remaining)
            yield f"x-ratelimit-reset-{kind}", duration(bucket.reset.seconds + bucket.reset.nanos / 1e9)


def _auto(auto: receipt_pb2.AutoChoice) -> str:
    """The model that was chosen for `auto`, as the HTTP header of the same name has it: percent-encoded where need be."""
    return auto_text(auto.model, auto.task_type, auto.confidence, word(receipt_pb2.Classifier, auto.classifier))


def _hints(end: CallFailed) -> tuple[tuple[str, str], ...]:
    """Trailing metadata of a failed call: what stock clients read, and the receipt."""
    pushback = () if end.retry_after is None else (("grpc-retry-pushback-ms", str(round(end.retry_after * 1e9) // 1_000_000)),)
    return (*pushback, *(() if end.receipt is None else _trailing(receipt_message(end.receipt))))


def _error_bytes(context: _Context) -> int:
    """How much of an upstream's error the caller can take; our own facade says, stock clients get the safe default."""
    for name, value in context.invocation_metadata() or ():
        if name == ERROR_BYTES and isinstance(value, str) and value.isdigit():
            return min(int(value), MAX_ERROR_BYTES)
    return DEFAULT_ERROR_BYTES


@dataclass(frozen=True, slots=True)
class GrpcTls:
    """What the port shows, how long a handshake may take (seconds), and whether clients show a certificate."""

    credentials: grpc.ServerCredentials
    handshake: float
    certificates: bool


class GrpcServer:
    """The gRPC server of some services, with health (Check and Watch), reflection (v1 and v1alpha) and channelz."""

    def __init__(
        self,
        service: Services,
        *,
        max_body_bytes: int,
        write_timeout: float,
        tls: GrpcTls | None = None,
        services: Sequence[str] = SERVICES,
        with_reflection: bool = True,
        with_channelz: bool = True,
        max_age: float | None = None,
        arriving: ArrivingRequests | None = None,
    ) -> None:
        self.arriving = arriving or ArrivingRequests(usable_memory() // ARRIVING_SHARE)
        self.health = health.aio.HealthServicer()
        self._tls = tls
        self._services = services
        wire = partial(_believed, service, _certified if tls is not None and tls.certificates else _wire)
        self._server = grpc.aio.server(
            interceptors=[UndecodableRequests(partial(_refuse_undecodable, service, wire), self.arriving)],
            options=[
                ("grpc.max_receive_message_length", max_body_bytes + 1024 * 1024),
                ("grpc.max_send_message_length", -1),
                ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
                ("grpc.so_reuseport", 0),
                ("grpc.max_concurrent_streams", MAX_STREAMS),
                # Of what has not been asked for gRPC takes 64 KiB of each stream, and not as much as the line is fast.
                ("grpc.http2.bdp_probe", 0),
                # One connection carries any number of calls; further ones are closed as they come.
                ("grpc.max_allowed_incoming_connections", max(usable_descriptors() // CONNECTIONS_SHARE, 1)),
                # Calls under way have all the time that they need.
                *([] if max_age is None else [("grpc.max_connection_age_ms", max(round(max_age * 1000), 1))]),
                *([] if tls is None else [("grpc.server_handshake_timeout_ms", max(round(tls.handshake * 1000), 1))]),
            ],
        )
        Servicer(service, write_timeout, wire).add_to(self._server, services)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        if with_channelz:
            channelz.add_channelz_servicer(self._server)
        if with_reflection:
            enable_reflection(self._server, (*services, _HEALTH, *((_CHANNELZ,) if with_channelz else ())))

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which port 0 lets the system choose. Raises OSError when the address is taken."""
        address = host if host.startswith("unix:") else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._tls is None or host.startswith("unix:"):  # a socket in the file system is as safe as its folder
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, self._tls.credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}") from error
        await self._server.start()
        await self.set_serving(serving=True)
        return bound

    async def set_serving(self, *, serving: bool) -> None:
        """Set the state in grpc.health.v1, overall and for each service."""
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._services):
            await self.health.set(name, state)

    async def drain(self) -> None:
        """Say in grpc.health.v1 for good that nothing is served; later calls of `set_serving` have no effect."""
        await self.health.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        """Take no new calls, let the ones under way finish for `grace` seconds, then cancel them."""
        await self._server.stop(grace)


def enable_reflection(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Serve descriptors under both names: newer tools ask v1, older ones v1alpha. The messages are the same on the wire."""
    names = (*services, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    handler = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(names).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    v1 = grpc.method_handlers_generic_handler("grpc.reflection.v1.ServerReflection", {"ServerReflectionInfo": handler})
    server.add_generic_rpc_handlers((v1,))
