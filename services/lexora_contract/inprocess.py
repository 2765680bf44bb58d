"""A router in the same process: the same deadlines and errors, no socket and no message."""

from typing import Any, Protocol

from lexora.v1.router_pb2 import StreamRequest
from lexora_contract.port import CallContext, ClientSink, Options, RawCall, Send
from lexora_contract.rpcs import Request, Response, Rpc


class Service(Protocol):
    """What serves the calls."""

    def method_of(self, rpc: Rpc[Any, Any]) -> Any:
        """What serves an rpc: `await ...(request, context)`."""

    async def foresee(self, rpc: Rpc[Any, Any], options: Options, context: CallContext, size: int) -> str:
        """As RouterPort.foresee."""
        ...

    async def relay(self, call: RawCall, context: CallContext, sink: ClientSink) -> None:
        """As RouterPort.relay."""

    async def stream(self, request: StreamRequest, context: CallContext, send: Send) -> None:
        """As RouterPort.stream."""


class InProcessRouter:
    """A RouterPort that is the service itself."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.foresee, self.relay, self.stream = service.foresee, service.relay, service.stream

    async def unary(self, rpc: Rpc[Request, Response], request: Request, context: CallContext) -> Response:
        """Ask one thing, get one answer."""
        response: Response = await self._service.method_of(rpc)(request, context)
        return response
