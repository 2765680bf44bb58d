"""Requests whose bytes are no message of their rpc: grpc itself answers UNKNOWN to them and logs a traceback for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from lexora_contract.rpcs import RPCS
from lexora_router.edge.arriving_requests import ArrivingRequests
from lexora_router.edge.grpc_reading import Messages, reading

if TYPE_CHECKING:
    _Handler = grpc.RpcMethodHandler[Any, Any]

_Context = grpc.aio.ServicerContext[Any, Any]
# Answers such a call and does not return: with the full name of the rpc, such as /lexora.v1.RouterService/Generate.
Refuse = Callable[[str, _Context], Awaitable[None]]


class UndecodableRequests(grpc.aio.ServerInterceptor):
    """Lets `refuse` answer the requests that do not decode, of every service on the server.

    A message like that in a stream of requests counts as an empty one, which its service answers for itself.
    """

    def __init__(self, refuse: Refuse, arriving: ArrivingRequests) -> None:
        self._refuse = refuse
        self._arriving = arriving
        self._handlers: dict[str, _Handler] = {}

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]], details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        """The rpc's handler in its tolerant form, which is made once."""
        found = self._handlers.get(details.method)
        if found is None:
            handler = await continuation(details)
            if handler is None:
                return None
            found = self._handlers[details.method] = self._tolerant(details.method, handler)
        return found

    def _tolerant(self, method: str, handler: _Handler) -> _Handler:
        decode, encode = handler.request_deserializer, handler.response_serializer
        if decode is None:
            return handler
        if handler.stream_stream is not None:
            # The stubs are typed for grpc's blocking handlers.
            serve: Callable[..., AsyncIterator[Any]] = handler.stream_stream  # type: ignore[assignment]
            tolerant, arriving = _or(decode, decode(b"")), self._arriving

            async def converse(_: Any, context: _Context) -> None:
                async for response in serve(Messages(context, tolerant, arriving), context):
                    await context.write(response)

            made: Any = grpc.stream_stream_rpc_method_handler
            found: _Handler = made(converse, None, encode)
            return found
        raw = method in RPCS and RPCS[method].raw
        return reading(handler, partial(self._refuse, method), self._arriving, parts=raw)


def _or(decode: Callable[[bytes], Any], otherwise: Any) -> Callable[[bytes], Any]:
    def tolerant(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError:
            return otherwise

    return tolerant
