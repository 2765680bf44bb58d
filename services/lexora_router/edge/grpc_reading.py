"""Requests with large bodies, read so that nothing holds their bytes for as long as the call lasts.

grpc keeps the bytes of a unary request, and the message made of them, until its handler has ended. A handler of a stream of
requests reads its messages itself; on the wire the two are the same, one message and the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc
from google.protobuf.message import DecodeError

from lexora.v1 import explain_pb2, raw_pb2, router_pb2
from lexora_router.edge.arriving_requests import ArrivingRequests
from lexora_router.edge.grpc_abort import abort

if TYPE_CHECKING:
    _Handler = grpc.RpcMethodHandler[Any, Any]

TOO_SLOW = "The message did not come in its time, or came slowly with too many others (server.max_buffered_bytes)."
# The body of a smaller request stays in its message: to part them costs more than it saves.
LARGE_BYTES = 64 * 1024

_Context = grpc.aio.ServicerContext[Any, Any]
_Request = TypeVar("_Request", router_pb2.GenerateRequest, router_pb2.StreamRequest, explain_pb2.ExplainRequest)


@dataclass(slots=True)
class Parted(Generic[_Request]):
    """A request, and the body of its raw call beside it where that is large."""

    message: _Request
    body: bytes = b""

    def take_body(self) -> bytes:
        """The body, which is given away."""
        body, self.body = self.body, b""
        return body


def parted(message: _Request) -> Parted[_Request]:
    """The request in two parts. A protobuf message never lets go of what was in it, so it is made anew without the body."""
    asked = message.call
    if not asked.HasField("raw"):
        return Parted(message)
    rest = type(message)()
    rest.call.options.CopyFrom(asked.options)
    kept = {field.name: value for field, value in asked.raw.ListFields() if field.name != "body"}
    rest.call.raw.MergeFrom(raw_pb2.RawCall(**kept))
    return Parted(rest, asked.raw.body)


async def received(context: _Context, arriving: ArrivingRequests) -> Any:
    """The bytes of the next message, or grpc's EOF. One that comes too slowly, when too many do, ends its rpc."""
    task = arriving.begin()
    try:
        return await context.read()
    except asyncio.CancelledError:
        if not arriving.has_ended(task) or task.uncancel():
            raise
    finally:
        arriving.arrived(task)
    return await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_SLOW)


def reading(
    handler: _Handler, refuse: Callable[[_Context], Awaitable[None]], arriving: ArrivingRequests, *, parts: bool
) -> _Handler:
    """The handler of a unary request as one that reads it, `Parted` with `parts`; `refuse` answers what does not decode."""
    decode: Callable[[bytes], Any] | None = handler.request_deserializer
    assert decode is not None

    async def message(context: _Context) -> Any:
        data = await received(context, arriving)
        if data is grpc.aio.EOF:
            if context.cancelled():
                raise asyncio.CancelledError
            data = b""  # no message is an empty one
        try:
            decoded = decode(data)
        except DecodeError:
            pass
        else:
            if not parts:
                return decoded
            return parted(decoded) if len(data) >= LARGE_BYTES else Parted(decoded)
        await refuse(context)
        raise AssertionError("refusing raises")

    # The stubs are typed for grpc's blocking handlers.
    serve: Callable[..., Awaitable[Any]] = handler.unary_stream or handler.unary_unary  # type: ignore[assignment]

    async def read_and_serve(_: Any, context: _Context) -> Any:
        return await serve(await message(context), context)

    made: Any = grpc.stream_stream_rpc_method_handler if handler.unary_stream else grpc.stream_unary_rpc_method_handler
    found: _Handler = made(read_and_serve, None, handler.response_serializer)
    return found


class Messages:
    """The messages of a stream of requests, one after the other."""

    def __init__(self, context: _Context, decode: Callable[[bytes], Any], arriving: ArrivingRequests) -> None:
        self._context = context
        self._decode = decode
        self._arriving = arriving

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> Any:
        data = await received(self._context, self._arriving)
        if data is grpc.aio.EOF:
            raise StopAsyncIteration
        return self._decode(data)
