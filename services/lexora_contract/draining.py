"""Calls under way, and their end when a process stops: no new ones, patience with those there are, an error for the rest."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Generic, ParamSpec, TypeVar

from lexora.v1.router_pb2 import StreamRequest
from lexora_contract.port import CallContext, CallFailed, ClientSink, Options, RawCall, RouterPort, Send
from lexora_contract.rpcs import Request, Response, Rpc

T = TypeVar("T")
_Answer = TypeVar("_Answer")
_Given = ParamSpec("_Given")


class Underway(Generic[T]):
    """The calls under way, each served by a task of its own."""

    def __init__(self) -> None:
        self._calls: dict[asyncio.Task[Any], T] = {}
        self._aborted: set[asyncio.Task[Any]] = set()
        self._idle: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[T]:
        return iter(self._calls.values())

    def begin(self, call: T) -> asyncio.Task[Any]:
        """The current task serves `call` from now on; give it to `end`."""
        task = asyncio.current_task()
        assert task is not None
        self._calls[task] = call
        return task

    def end(self, task: asyncio.Task[Any]) -> None:
        """The task has served its call."""
        del self._calls[task]
        self._aborted.discard(task)
        if not self._calls and self._idle is not None:
            self._idle.set()

    async def idle(self, seconds: float) -> bool:
        """Wait until no call is under way, for at most so many seconds; whether that came."""
        try:
            async with asyncio.timeout(seconds):
                while self._calls:
                    self._idle = asyncio.Event()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def abort(self) -> list[T]:
        """Cancel the calls under way that were not cancelled so before, and return them."""
        found = {task: call for task, call in self._calls.items() if task not in self._aborted}
        self._aborted |= found.keys()
        for task in found:
            task.cancel()
        return list(found.values())

    def ended_by_abort(self) -> bool:
        """Of a call that is being cancelled, whether `abort` alone did it; then the cancellation is over.

        A client that left at the same moment has cancelled the task once more, and needs no answer.
        """
        task = asyncio.current_task()
        return task is not None and task in self._aborted and task.uncancel() == 0


class DrainingPort:
    """A router port that can be emptied."""

    def __init__(self, inner: RouterPort) -> None:
        self._inner = inner
        self._calls: Underway[None] = Underway()
        self._refusing = False

    @property
    def active(self) -> int:
        """Calls under way."""
        return len(self._calls)

    async def drain(self, seconds: float) -> None:
        """Refuse new calls; return when those under way are done or `seconds` have passed."""
        self._refusing = True
        await self._calls.idle(seconds)

    def abort(self) -> None:
        """End the calls under way with an error that says why, so that their clients get an end of their answers."""
        self._calls.abort()

    async def foresee(self, rpc: Rpc[Any, Any], options: Options, context: CallContext, size: int) -> str:
        """What would be refused whatever its body says."""
        return await self._counted(self._inner.foresee, rpc, options, context, size)

    async def unary(self, rpc: Rpc[Request, Response], request: Request, context: CallContext) -> Response:
        """Ask one thing, get one answer."""
        return await self._counted(self._inner.unary, rpc, request, context)

    async def relay(self, call: RawCall, context: CallContext, sink: ClientSink) -> None:
        """Serve one call in the engine's own bytes."""
        await self._counted(self._inner.relay, call, context, sink)

    async def stream(self, request: StreamRequest, context: CallContext, send: Send) -> None:
        """A call in typed form, streamed."""
        await self._counted(self._inner.stream, request, context, send)

    async def _counted(
        self, method: Callable[_Given, Awaitable[_Answer]], *given: _Given.args, **named: _Given.kwargs
    ) -> _Answer:
        if self._refusing:
            raise _refusal()
        task = self._calls.begin(None)
        try:
            return await method(*given, **named)
        except asyncio.CancelledError:
            if self._calls.ended_by_abort():
                raise _refusal() from None
            raise
        finally:
            self._calls.end(task)


def _refusal() -> CallFailed:
    return CallFailed("DRAINING", "The gateway is shutting down; try another one.", retry_after=1.0)
