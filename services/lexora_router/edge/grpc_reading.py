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

if TYPE_CHECKING:
    _Handler = grpc.RpcMethodHandler[Any, Any]

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


def reading(handler: _Handler, refuse: Callable[[_Context], Awaitable[None]]) -> _Handler:
    """The handler of a unary request as one that reads it and gets it `Parted`; `refuse` answers what does not decode."""
    decode: Callable[[bytes], Any] | None = handler.request_deserializer
    assert decode is not None

    async def received(context: _Context) -> Parted[Any]:
        data = await context.read()
        if data is grpc.aio.EOF:
            if context.cancelled():
                raise asyncio.CancelledError
            data = b""  # no message is an empty one
        try:
            return parted(decode(data)) if len(data) >= LARGE_BYTES else Parted(decode(data))
        except DecodeError:
            pass
        await refuse(context)
        raise AssertionError("refusing raises")

    # The stubs are typed for grpc's blocking handlers.
    serve: Callable[..., Awaitable[Any]] = handler.unary_stream or handler.unary_unary  # type: ignore[assignment]

    async def read_and_serve(_: Any, context: _Context) -> Any:
        return await serve(await received(context), context)

    made: Any = grpc.stream_stream_rpc_method_handler if handler.unary_stream else grpc.stream_unary_rpc_method_handler
    found: _Handler = made(read_and_serve, None, handler.response_serializer)
    return found
