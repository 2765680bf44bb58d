"""The services on the gRPC wire: each rpc is answered, and what fails becomes a status."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn, TypeVar

import grpc

from lexora.v1 import receipt_pb2, router_pb2
from lexora_contract.messages import receipt_of
from lexora_contract.port import CallContext, CallFailed
from lexora_contract.rpcs import SERVICES, STREAM, UNARY, Rpc
from lexora_contract.status import status_of
from lexora_router.edge.call_failed import failed
from lexora_router.edge.grpc_abort import abort
from lexora_router.edge.grpc_context import GrpcContext, Wire, wire_of
from lexora_router.edge.grpc_reading import Parted
from lexora_router.edge.grpc_trailers import error_bytes, hints, trailing
from lexora_router.edge.services import Services
from lexora_router.edge.write_limit import WriteLimit
from lexora_router.errors import ClientStalled

# The status for a client that takes nothing waits behind what was not taken; it arrives once that is read.
STALLED_SECONDS = 0.1
ELSEWHERE = "This is served at the port for operators (server.admin_grpc_port)."

_Answer = TypeVar("_Answer")
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Servicer:
    """Adapts a service to grpc.aio: each rpc is served by the method of its name."""

    def __init__(self, service: Services, write_timeout: float, wire: Wire | None = None) -> None:
        self._service = service
        self._write_timeout = write_timeout
        self._wire = wire or wire_of

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
        serve: Callable[[Any, CallContext], Awaitable[Any]] = self._service.method_of(rpc)

        async def answer(request: Any, context: GrpcContext) -> Any:
            message, wire = (request.message, self._wire(context, request)) if rpc.raw else (request, self._wire(context))
            response = await _served(context, serve(message, wire))
            if rpc.receipt:
                context.set_trailing_metadata(trailing(response.receipt))
            return response

        return answer

    async def _stream(self, request: Parted[router_pb2.StreamRequest], context: GrpcContext) -> None:
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
        context.set_trailing_metadata(trailing(last))

    async def _stalled(self, context: GrpcContext, receipt: receipt_pb2.Receipt) -> None:
        error = ClientStalled(f"The client took nothing of the answer for {self._write_timeout:g} s (server.write_timeout).")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STALLED_SECONDS):
                await _refused(context, failed(error, receipt_of(receipt)))


def _elsewhere(rpc: Rpc[Any, Any]) -> Any:
    async def refuse(_request: Any, context: GrpcContext) -> None:
        await _refused(context, CallFailed("UNIMPLEMENTED", ELSEWHERE))

    return grpc.unary_unary_rpc_method_handler(refuse, *_coders(rpc))


def _coders(rpc: Rpc[Any, Any]) -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
    return rpc.request.FromString, rpc.response.SerializeToString


async def _served(context: GrpcContext, answer: Awaitable[_Answer]) -> _Answer:
    try:
        return await answer
    except CallFailed as error:
        # Refused below, outside: what is raised there would have this one, and all its frames.
        end = error
        end.__traceback__ = end.__cause__ = end.__context__ = None
    return await _refused(context, end)


async def _refused(context: GrpcContext, end: CallFailed) -> NoReturn:
    status = status_of(end, max_body=error_bytes(context))
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()), *hints(end)))
    try:
        await abort(context, _CODES[status.code], status.message)
    except grpc.aio.InternalError:  # the client left while it was refused
        raise asyncio.CancelledError from None


async def refuse_undecodable(service: Services, wire: Wire, method: str, context: GrpcContext) -> None:
    """Answer a call whose request is no message of its rpc."""
    await _served(context, service.refuse_undecodable(method, wire(context)))
