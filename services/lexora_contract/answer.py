"""What the answer of a call is made of, in plain objects: both sides use them in process, gRPC adapters translate them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

Headers = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Usage:
    """Tokens of one call, as the engine counted them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Hop(NamedTuple):
    """One step of a call from a backend that failed to the next, and the reason of the error that made it."""

    origin: str
    to: str
    reason: str


def hops_text(hops: Iterable[Hop]) -> str:
    """The hops of a call as people read them, in the header, the log and a trace: `main->spare;reason=UPSTREAM_TIMEOUT`."""
    return ", ".join(f"{hop.origin}->{hop.to};reason={hop.reason}" for hop in hops)


@dataclass(slots=True)
class Receipt:
    """What happened to a call so far: layers write, `Observe` and the client read. Instants in seconds, 0 when not reached."""

    request_id: str = ""
    received_at: float = 0.0
    backend: str = ""
    endpoint: str = ""
    model: str = ""
    attempts: int = 0
    usage: Usage | None = None
    events: int = 0  # streamed so far: about as many as tokens, before usage is known
    hops: tuple[Hop, ...] = ()  # to other backends, in order
    resumed: str = ""  # "token_ids" or "text" where a stream went on elsewhere
    lost_tokens: int = 0  # made by attempts that failed, and made again
    late_attempts: int = 0  # whole answers that were not there in time: how far their engines were is unknown
    rate_limit: "RateLimitState | None" = None
    auto: "Choice | None" = None
    finish_reasons: tuple[str, ...] = ()
    dispatched_at: float = 0.0
    attempted_at: float = 0.0  # the last attempt; dispatched_at is the first
    first_event_at: float = 0.0
    finished_at: float = 0.0
    # Of the attempt under way, for the message when it takes too long:
    comments: int = 0  # before the first event of a stream
    body_bytes: int = 0  # of a whole answer
    heard_at: float = 0.0  # the last of these bytes

    @property
    def made(self) -> int:
        """Output tokens of the answer so far, without lost ones: as counted, else about as many as events were streamed."""
        return self.usage.output_tokens if self.usage is not None else max(self.events - self.lost_tokens, 0)


@dataclass(slots=True, frozen=True)
class Choice:
    """The model that fits a task best.

    `task_type` is one of the configured capabilities, empty when unknown; `confidence` is 0 to 1; `by` names the classifier:
    "rules", "embedding", "llm", or "default" when none of them was sure; `alternatives` are (model, score), best first.
    """

    model: str
    task_type: str
    confidence: float
    by: str
    reasoning: str = ""
    alternatives: tuple[tuple[str, float], ...] = ()


class BucketState(NamedTuple):
    """Where a user stands in one dimension: the most at once, what is left, seconds until all is back."""

    limit: int
    remaining: int
    reset: float


@dataclass(slots=True)
class RateLimitState:
    """Where a tenant stands; None for what is not limited."""

    requests: BucketState | None
    tokens: BucketState | None
    concurrent: BucketState | None = None  # calls under way; `reset` says nothing


@dataclass(slots=True)
class Head:
    """Status and end-to-end headers of the engine's answer; emitted once, just before the first frames."""

    status: int
    content_type: str
    headers: Headers = ()


@dataclass(slots=True)
class Reply:
    """A whole answer at once."""

    head: Head
    body: bytes


@dataclass(slots=True, frozen=True)
class EngineError:
    """The engine's own error, untouched: an answer of 400 or above, or an event of a stream, whose `status` is 0.

    `truncated`: the body was longer than a wire could carry.
    """

    status: int
    content_type: str
    body: bytes
    headers: Headers = ()
    truncated: bool = False
