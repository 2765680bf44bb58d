"""Requests whose bytes are no message of their rpc: grpc itself answers UNKNOWN to them and logs a traceback for each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from lexora_contract.rpcs import RPCS
from lexora_router.edge.grpc_reading import reading

if TYPE_CHECKING:
    _Handler = grpc.RpcMethodHandler[Any, Any]

_Context = grpc.aio.ServicerContext[Any, Any]
# Answers such a call and does not return: with the full name of the rpc, such as /lexora.v1.RouterService/Generate.
Refuse = Callable[[str, _Context], Awaitable[None]]


class _Undecodable:
    """Stands for a request that does not decode."""


_UNDECODABLE = _Undecodable()


class UndecodableRequests(grpc.aio.ServerInterceptor):
    """Lets `refuse` answer the requests that do not decode, of every service on the server.

    A message like that in a stream of requests counts as an empty one, which its service answers for itself.
    """

    def __init__(self, refuse: Refuse) -> None:
        self._refuse = refuse
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
        if method in RPCS and RPCS[method].raw:
            return reading(handler, partial(self._refuse, method))
        decode, encode = handler.request_deserializer, handler.response_serializer
        if decode is None:
            return handler
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(handler.stream_stream, _or(decode, decode(b"")), encode)
        if handler.unary_stream is not None:
            streamed = self._checked(method, handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(streamed, _or(decode, _UNDECODABLE), encode)
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._checked(method, handler.unary_unary), _or(decode, _UNDECODABLE), encode
            )
        return handler

    def _checked(self, method: str, serve: Callable[..., Any]) -> Callable[..., Any]:
        async def checked(request: Any, context: _Context) -> Any:
            if request is _UNDECODABLE:
                await self._refuse(method, context)
            return await serve(request, context)

        return checked


def _or(decode: Callable[[bytes], Any], otherwise: Any) -> Callable[[bytes], Any]:
    def tolerant(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError:
            return otherwise

    return tolerant
