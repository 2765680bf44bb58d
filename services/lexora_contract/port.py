"""The one thing that the façade sees of a router: `unary` for questions, `relay` for calls.

In process the objects below are handed on as they are; only the adapters at a gRPC wire make messages of them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from lexora.v1.router_pb2 import StreamRequest, StreamResponse
from lexora_contract.answer import EngineError, Head, Headers, Receipt, Reply
from lexora_contract.labels import Labels
from lexora_contract.reasons import REASONS
from lexora_contract.rpcs import Request, Response, Rpc


class Sink(Protocol):
    """Where the answer of a call goes: one `head` and then `frames`, or one `reply`. Synchronous, as a transport's write is."""

    def head(self, head: Head, /) -> None:
        """Status and headers of a stream, just before its first frames."""

    def frames(self, data: bytes, /) -> None:
        """Whole events, as many as one read brought."""

    def reply(self, reply: Reply, /) -> None:
        """A whole answer."""


class ClientSink(Sink, Protocol):
    """The sink at the client's end of a port. A client that is slow or gone is no reason to raise."""

    def accepted(self, receipt: Receipt, *, streams: bool) -> None:
        """The request is understood, and asks for a stream or not. Before all else; `receipt` is filled as the call goes on."""


class Source(Protocol):
    """What an answer is read from, as asyncio's transports are."""

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`."""

    def resume_reading(self) -> None:
        """Read again."""


class Flow:
    """Back-pressure of one call: the client's connection pauses, and the engine's stops reading until it resumes."""

    __slots__ = ("_source", "paused", "resumed_at")

    def __init__(self) -> None:
        self.paused = False
        self.resumed_at = 0.0  # by the event loop's clock, in seconds
        self._source: Source | None = None

    def pause(self) -> None:
        """The client does not take what is written to it."""
        self.paused = True
        if self._source is not None:
            self._source.pause_reading()

    def resume(self) -> None:
        """The client takes it again."""
        self.paused = False
        self.resumed_at = asyncio.get_running_loop().time()
        if self._source is not None:
            self._source.resume_reading()

    def attach(self, source: Source) -> None:
        """From now on the answer is read from `source`."""
        self._source = source
        if self.paused:
            source.pause_reading()

    def detach(self) -> None:
        """The source has given all that it had to give."""
        self._source = None


@dataclass(slots=True)
class Options:
    """How a call is to be treated; see CallOptions in options.proto."""

    request_id: str = ""
    user: str = ""
    priority: int | None = None
    fallback_allowed: bool = True
    resume_allowed: bool = True
    prompt_cache_key: str = ""
    max_queue_time: float | None = None  # seconds
    labels: Labels = ()
    tenant: str = ""
    session_key: str = ""
    idempotency_key: str = ""


@dataclass(slots=True)
class RawCall:
    """One request in OpenAI's own bytes; see RawCall in the contract. The body is given away: a call holds one copy of it."""

    path: str
    content_type: str = ""
    body: bytes = b""
    method: str = "POST"
    query: str = ""
    headers: Headers = ()  # of the client's request: of them those that the operation has reach the engine
    options: Options = field(default_factory=Options)

    def take_body(self) -> bytes:
        """The body; what takes it is the only one to hold it from now on."""
        body, self.body = self.body, b""
        return body


class Gate:
    """A source that a task reads: `await gate.passed()` before each read waits while the client is paused."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: asyncio.Future[None] | None = None

    def pause_reading(self) -> None:
        """Close."""
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_future()

    def resume_reading(self) -> None:
        """Open."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        self._waiting = None

    async def passed(self) -> None:
        """Return when the gate is open."""
        while self._waiting is not None:
            await self._waiting


@dataclass(slots=True)
class CallContext:
    """What surrounds a call.

    `metadata` is gRPC metadata (traceparent, tracestate, x-forwarded-for, credentials), names in lower case; `timeout` is the
    seconds left for the whole call, None for no limit; `peer` is the address at the other end of the wire, empty in process
    and for a unix socket. `body` is that of the request's raw call, beside the message and not in it, because each message
    that it would be put into would hold another copy for as long as the call lasts. `certificate` has the names (SAN) in
    the client's certificate, once it has been verified at this wire.
    """

    metadata: tuple[tuple[str, str], ...] = ()
    timeout: float | None = None
    body: bytes = b""
    peer: str = ""
    flow: Flow = field(default_factory=Flow)
    certificate: tuple[str, ...] = ()

    def take_body(self) -> bytes:
        """The body; what takes it is the only one to hold it from now on."""
        body, self.body = self.body, b""
        return body


class CallFailed(Exception):
    """A call that ended in an error.

    `reason` has a row in `reasons`, `message` is for the client, `code` is gRPC's. `param` names the field of a malformed
    request; `retry_after` is in seconds; `quota` names the tenant and the bucket that is used up; `engine` is the engine's
    own error; `receipt` is as far as the call came.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        code: int | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        quota: str = "",
        engine: EngineError | None = None,
        receipt: Receipt | None = None,
        trace_id: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.code: int = REASONS[reason].code if code is None else code
        self.param = param
        self.retry_after = retry_after
        self.quota = quota
        self.engine = engine
        self.receipt = receipt
        self.trace_id = trace_id


Send = Callable[[StreamResponse], Awaitable[None]]


class RouterPort(Protocol):
    """A router. Every method raises CallFailed; cancelling the task that awaits one cancels the call."""

    async def foresee(self, rpc: Rpc[Any, Any], options: Options, context: CallContext, size: int) -> str:
        """Raise CallFailed for a call that would be refused whatever its body of `size` bytes says; it has been counted then.

        Gives the account of the call's credentials, empty where none are asked for.

        For the time before the body is read, by credentials, user and tenant as far as headers have them. A router elsewhere
        is not asked.
        """
        ...

    async def unary(self, rpc: Rpc[Request, Response], request: Request, context: CallContext) -> Response:
        """Ask one thing, get one answer."""
        ...

    async def relay(self, call: RawCall, context: CallContext, sink: ClientSink) -> None:
        """Serve one call in the engine's own bytes: the answer goes to `sink`, and has all gone there at the return."""

    async def stream(self, request: StreamRequest, context: CallContext, send: Send) -> None:
        """A call in typed form, streamed."""
