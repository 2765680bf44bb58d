"""The one shape of everything in the router: a handler serves one call by emitting its events in order.

Push, not pull: with `await emit(event)` a slot, a timeout or a span surrounds a whole answer in one task and one stack.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

Headers = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Usage:
    """Tokens of one call, as the engine counted them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(slots=True)
class Receipt:
    """What happened to a call so far: layers write, `Observe` and the client read. Instants in seconds, 0 when not reached."""

    backend: str = ""
    endpoint: str = ""
    model: str = ""
    attempts: int = 0
    usage: Usage | None = None
    dispatched_at: float = 0.0
    first_event_at: float = 0.0
    finished_at: float = 0.0


@dataclass(slots=True, frozen=True)
class Timeouts:
    """Durations in seconds that bound one attempt."""

    first_token: float
    idle: float
    total: float


@dataclass(slots=True)
class Call:
    """One call of one client. `deadline` and `started` are instants of the monotonic clock, in seconds."""

    id: str
    path: str
    body: bytes
    content_type: str
    model: str
    stream: bool
    started: float
    include_usage: bool = False
    user: str = ""
    deadline: float | None = None
    trace: Headers = ()
    target: "Target | None" = None
    receipt: Receipt = field(default_factory=Receipt)


@dataclass(slots=True, frozen=True)
class Head:
    """Status and end-to-end headers of the engine's answer; emitted once, just before the first frames."""

    status: int
    content_type: str
    headers: Headers = ()


@dataclass(slots=True, frozen=True)
class Frames:
    """Whole server-sent events, as the engine sent them."""

    data: bytes


@dataclass(slots=True, frozen=True)
class Reply:
    """A whole answer at once."""

    head: Head
    body: bytes


Event = Head | Frames | Reply
Emit = Callable[[Event], Awaitable[None]]


class Handler(Protocol):
    """Serve one call: emit its events in order, return at the end, raise on failure."""

    async def __call__(self, call: Call, emit: Emit, /) -> None:
        """See the class."""


class Endpoint(Protocol):
    """One address of a pool."""

    address: str
    in_flight: int
    healthy: bool | None

    async def attempt(self, call: Call, emit: Emit, /) -> None:
        """Try the call here once; raises UpstreamFailure."""


@dataclass(slots=True, frozen=True)
class Target:
    """Where a call may go: interchangeable endpoints, and the name the model has there."""

    backend: str
    endpoints: tuple[Endpoint, ...]
    timeouts: Timeouts
    model: str


def compose(*layers: Callable[[Handler], Handler], around: Handler) -> Handler:
    """Wrap `around` in the layers, the first one outermost."""
    handler = around
    for layer in reversed(layers):
        handler = layer(handler)
    return handler


class Commit:
    """An emit that remembers whether the client has seen anything; after that nothing may be tried again."""

    __slots__ = ("_emit", "done")

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.done = False

    async def __call__(self, event: Event) -> None:
        """Pass the event on."""
        self.done = True
        await self._emit(event)
