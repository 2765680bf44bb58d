"""The one shape of everything in the router: a handler serves one call by giving its answer to a sink, in order.

Push, not pull: a slot, a timeout or a span surrounds a whole answer in one task and one stack, while the pieces of the answer
pass by from the engine's connection to the sink without waking that task.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, NoReturn, Protocol, TypeVar

from lexora_contract.answer import Head, Headers, Receipt, Reply
from lexora_contract.labels import Labels
from lexora_contract.port import Flow, Sink
from lexora_router.errors import UpstreamFailure, UpstreamInvalid
from lexora_router.principal import ANYBODY, Principal

T = TypeVar("T")
ANONYMOUS = "anonymous"  # a client that names no user; `anonymous@` and an address where it has one
AUTO = "auto"  # the name that asks for whatever model fits


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
    account: str = ""  # the tenant: its principal's, else the one that is named beside the user
    principal: Principal = ANYBODY
    unnamed: str = ANONYMOUS  # whose the call is when no user is named
    prompt_cache_key: str = ""  # calls that say the same one are about to share the beginning of their prompts
    priority: int | None = None
    max_queue_time: float | None = None  # seconds for its first slot at a backend, where that is less than configured
    labels: Labels = ()  # within bounds, also those of a call that is refused
    session_key: str = ""
    idempotency_key: str = ""  # goes to the engine with every attempt
    cache_salt: str = ""  # of its tenant in the prefix caches of engines; empty where tenants are not known
    own_priority: bool = False  # the body names one itself, in the engine's words; it is not the client's to choose
    max_tokens: int | None = None
    input_estimate: int = 0  # tokens, before an engine has counted them; 0: not estimated yet
    method: str = "POST"
    response_id: str = ""  # of a stored response; then `resource` is its path at the engine, with the id, and `query` is for it
    resource: str = ""
    query: tuple[tuple[str, str], ...] = ()
    headers: Headers = ()  # of the client's own, those that reach the engine
    choices: int = 1  # answers that are asked for, each of up to max_tokens
    fallback_allowed: bool = True
    resume_allowed: bool = True
    deadline: float | None = None
    trace: Headers = ()
    targets: "tuple[Target, ...]" = ()
    target: "Target | None" = None
    elsewhere: bool = False  # another target is left, if this one fails before the first event
    lease: "Lease | None" = None
    resent: bool = False  # on account of a stale connection
    aborted: bool = False  # the router itself cancels it, at the end of a drain
    tracing: "Tracing | None" = None  # None: the call is not traced
    endpoint: "Endpoint | None" = None
    receipt: Receipt = field(default_factory=Receipt)
    flow: Flow = field(default_factory=Flow)  # pauses the engine's connection while the client takes nothing
    begun: bool = False  # something of the answer was handed on: from now on nothing may be tried again

    def answers(self, now: float) -> None:
        """The first of the answer is about to be handed on."""
        self.begun = True
        self.receipt.first_event_at = now
        if self.lease is not None:
            self.lease.answered()

    @property
    def tenant(self) -> str:
        """Whose account is charged: clients that name neither tenant nor user have one for each address."""
        return self.account or self.user or self.unnamed


def settings_name(tenant: str) -> str:
    """The name under which a tenant's settings are configured: calls that name no user have those of `anonymous`."""
    return ANONYMOUS if tenant.startswith(f"{ANONYMOUS}@") else tenant


class Handler(Protocol):
    """Serve one call: give its answer to the sink in order, return at the end, raise on failure.

    What gives the first of the answer sets `call.begun` before. A layer that does not look at the answer hands its sink down;
    one that does not surround this call gives what the layer below gives, and is no frame of its own.
    """

    def __call__(self, call: Call, sink: Sink, /) -> Awaitable[None]:
        """See the class."""


class Endpoint(Protocol):
    """One address of a pool."""

    address: str

    async def attempt(self, call: Call, sink: Sink, /) -> None:
        """Try the call here once; raises UpstreamFailure."""


class Outcome(StrEnum):
    """What an attempt's end says of its endpoint."""

    GOOD = "good"
    FAULT = "fault"
    BUSY = "busy"  # 429 or 503: it is well, and has enough to do
    NEUTRAL = "neutral"  # another 4xx, a client that left

    __hash__ = str.__hash__  # that of Enum is a function of Python


class Lease(Protocol):
    """A call's place in a pool: an admitted call holds one slot at one endpoint until it is done."""

    async def next(self) -> Endpoint:
        """Endpoint of the next attempt: one that has not been tried, where there is one; waits for a slot if need be."""

    def has_untried(self) -> bool:
        """Whether an available endpoint has not been tried yet."""

    def has_sound(self) -> bool:
        """Whether one of these answers nearly all that it is asked."""

    def rest(self, seconds: float) -> None:
        """Let the next attempt go to an endpoint that was tried only after so many seconds; inf: never."""

    @property
    def bound(self) -> float:
        """Seconds after which a unary attempt is overdue; inf when that is not known."""

    def gone_silent(self) -> bool:
        """Whether the attempt is overdue at an endpoint that has gone silent, and another endpoint is left."""

    def answered(self) -> None:
        """The attempt's first token is here."""

    def may_go_on(self) -> bool:
        """Whether the call may be tried again: one that two endpoints have failed at is not given to a third."""

    def ended(self, outcome: Outcome, failure: UpstreamFailure | None = None) -> None:
        """The attempt is over, by that failure if any."""

    def stay(self) -> None:
        """Let the next attempt be at the same endpoint, in the slot that is held."""

    def pause(self) -> None:
        """Give the slot to others while this call waits before its next attempt; its place in the queue is the first."""


class Tracing(Protocol):
    """Writes down where the time of one call goes. Its errors are read, never kept."""

    def waits(self) -> None:
        """The call comes to the queue of its target."""

    def gave_up(self, call: Call, error: BaseException) -> None:
        """The target is done with; if the call still waited for its first slot, this is why it waits no more."""

    def tries(self, call: Call) -> None:
        """An attempt begins, or the wait for its slot; `call.trace` becomes what the engine is to get."""

    def tried(self, call: Call, error: BaseException | None) -> None:
        """The attempt is over, or the wait for its slot."""


@dataclass(slots=True, frozen=True)
class Target:
    """Where a call may go: a backend, and the name that the model has there; `substitute` when it is another model.

    `name` is what clients call it.
    """

    backend: str
    timeouts: Timeouts
    model: str
    substitute: bool = False
    name: str = ""


def compose(*layers: Callable[[Handler], Handler], around: Handler) -> Handler:
    """Wrap `around` in the layers, the first one outermost."""
    handler = around
    for layer in reversed(layers):
        handler = layer(handler)
    return handler


class WholeAnswer(Generic[T]):
    """A sink for a whole answer, which `read` reads as it comes, so that one that cannot be read fails its attempt."""

    __slots__ = ("_found", "_read")

    def __init__(self, read: Callable[[Reply], T]) -> None:
        self._read = read
        self._found: list[T] = []

    def head(self, head: Head) -> NoReturn:
        """Raise UpstreamInvalid."""
        raise UpstreamInvalid("The engine sent a stream where a whole answer was asked for.")

    def frames(self, data: bytes) -> None:
        """Nothing: no frames come without a head."""

    def reply(self, reply: Reply) -> None:
        """Read the answer."""
        self._found.append(self._read(reply))

    @property
    def answer(self) -> T:
        """What was read."""
        return self._found[0]
