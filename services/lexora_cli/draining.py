"""A router port that can be emptied: no new calls, patience with those under way, and a proper error for what is left."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from lexora.v1 import router_pb2
from lexora.v1.receipt_pb2 import Receipt
from lexora_contract.port import CallContext, ClientSink, RawCall, RouterPort, Send, StatusError
from lexora_contract.rpcs import Request, Response, Rpc
from lexora_router.edge.status import status_of
from lexora_router.errors import Draining

_Answer = TypeVar("_Answer")
_Given = ParamSpec("_Given")


class DrainingPort:
    """Passes calls on to `inner` and knows which are under way."""

    def __init__(self, inner: RouterPort) -> None:
        self._inner = inner
        self._tasks: set[asyncio.Task[Any]] = set()
        self._aborted: set[asyncio.Task[Any]] = set()
        self._refusing = False
        self._idle = asyncio.Event()

    @property
    def active(self) -> int:
        """Calls under way."""
        return len(self._tasks)

    async def drain(self, seconds: float) -> None:
        """Refuse new calls; return when those under way are done or `seconds` have passed."""
        self._refusing = True
        if not self._tasks:
            return
        self._idle.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass  # the caller aborts what is left

    def abort(self) -> None:
        """End the calls under way with an error that says why, so that their clients get an end of their answers."""
        for task in self._tasks - self._aborted:
            self._aborted.add(task)
            task.cancel()

    def foresee(self, user: str, size: int) -> None:
        """What would be refused whatever its body says."""
        if self._refusing:
            raise _refusal()
        self._inner.foresee(user, size)

    async def unary(self, rpc: Rpc[Request, Response], request: Request, context: CallContext) -> Response:
        """Ask one thing, get one answer."""
        return await self._counted(self._inner.unary, rpc, request, context)

    async def relay(self, call: RawCall, context: CallContext, sink: ClientSink) -> None:
        """Serve one call in the engine's own bytes."""
        await self._counted(self._inner.relay, call, context, sink)

    async def stream(self, request: router_pb2.StreamRequest, context: CallContext, send: Send) -> None:
        """A call in typed form, streamed."""
        await self._counted(self._inner.stream, request, context, send)

    async def _counted(
        self, method: Callable[_Given, Awaitable[_Answer]], *given: _Given.args, **named: _Given.kwargs
    ) -> _Answer:
        if self._refusing:
            raise _refusal()
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            return await method(*given, **named)
        except asyncio.CancelledError:
            # A client that left at the same moment has cancelled the task once more: then nobody needs an answer.
            if task in self._aborted and task.uncancel() == 0:
                raise _refusal() from None
            raise
        finally:
            self._tasks.discard(task)
            self._aborted.discard(task)
            if not self._tasks:
                self._idle.set()


def _refusal() -> StatusError:
    error = Draining("The gateway is shutting down; try another one.")
    return StatusError(status_of(error, Receipt(), max_body=0))
