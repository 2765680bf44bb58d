"""What each failure means: one table that retries, fallback, resumed streams, breakers and retry hints read.

A failure is named by `kind_of`, and `VERDICTS` has everything that follows from the name. docs/architecture.md shows the same
table. Statuses are those of RFC 9110, section 15; an engine's error page counts as its status does.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from lexora_router.call import Outcome
from lexora_router.errors import (
    NoHealthyEndpoint,
    OutOfResources,
    QueueFull,
    RequestQuarantined,
    RouterError,
    UnsupportedByBackend,
    UpstreamBroken,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)

# So many endpoints may fail at a call before its first token there: what breaks engines must not be given to each in turn, and
# a call that two of them answer with an error of their own making is the likelier cause. An endpoint that has given tokens and
# breaks then was well with the call; others may die at the same moment.
MAX_FAILED = 2


class Kind(Enum):
    """What happened."""

    NOT_SERVED = auto()
    NO_ROOM = auto()
    OUT_OF_RESOURCES = auto()
    CONNECTION_REFUSED = auto()
    CONNECT_TIMEOUT = auto()
    STALE_CONNECTION = auto()
    CONNECTION_LOST = auto()
    NO_FIRST_TOKEN = auto()
    GONE_SILENT = auto()
    SILENCE = auto()
    OVERTIME = auto()
    BROKEN = auto()
    INVALID = auto()
    TOO_LARGE = auto()
    RATE_LIMITED = auto()
    OVERLOADED = auto()
    BAD_GATEWAY = auto()
    ENGINE_ERROR = auto()
    UNSUPPORTED = auto()
    REQUEST_BLAMED = auto()
    REQUEST_TIMEOUT = auto()
    REQUEST_REFUSED = auto()
    OTHER = auto()


class RetryScope(StrEnum):
    """Whether the pool is asked again while the client has seen nothing.

    Elsewhere: at an endpoint that the call has not tried. Shortly: there, or where there is none once more after a moment.
    Freely: once more at once, at the same endpoint, which has read nothing of the call: it costs no retry.
    """

    NEVER = "never"
    ELSEWHERE = "elsewhere"
    SHORTLY = "shortly"
    ANYWHERE = "anywhere"
    FREELY = "freely"


class FallbackRule(StrEnum):
    """Whether the route's next target is asked."""

    NEVER = "never"
    ALWAYS = "always"
    ON_RATE_LIMIT = "on_rate_limit"  # where `fallback.on_rate_limit` says so


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a failure.

    `outcome` is what it says of the endpoint; `resume` whether another engine may go on with a stream that has begun; `hint`
    whether the engine's Retry-After says when to come back.
    """

    what: str
    outcome: Outcome
    retry: RetryScope
    fallback: FallbackRule
    resume: bool
    hint: bool


_FAULT, _BUSY, _NEUTRAL = Outcome.FAULT, Outcome.BUSY, Outcome.NEUTRAL
_NEVER, _ELSEWHERE, _SHORTLY, _ANYWHERE, _FREELY = RetryScope
_NO_HOP, _HOP, _MAY_HOP = FallbackRule
_YES, _NO = True, False

# fmt: off
VERDICTS = {  # what, outcome, retry, fallback, resume, hint
    Kind.NOT_SERVED:         Verdict("what the backend does not have", _NEUTRAL, _NEVER, _HOP, _NO, _NO),
    Kind.NO_ROOM:            Verdict("a full queue or no endpoint that takes calls", _NEUTRAL, _NEVER, _HOP, _NO, _NO),
    Kind.OUT_OF_RESOURCES:   Verdict("no file descriptor, memory or port here", _NEUTRAL, _ANYWHERE, _NO_HOP, _YES, _NO),
    Kind.CONNECTION_REFUSED: Verdict("a refused connection", _FAULT, _SHORTLY, _HOP, _YES, _NO),
    Kind.CONNECT_TIMEOUT:    Verdict("no connection in time", _FAULT, _ELSEWHERE, _HOP, _YES, _NO),
    Kind.STALE_CONNECTION:   Verdict("a kept connection that closes as it is used", _NEUTRAL, _FREELY, _HOP, _YES, _NO),
    Kind.CONNECTION_LOST:    Verdict("a lost connection", _FAULT, _ANYWHERE, _HOP, _YES, _NO),
    Kind.NO_FIRST_TOKEN:     Verdict("no first token in time", _FAULT, _ANYWHERE, _HOP, _YES, _NO),
    Kind.GONE_SILENT:        Verdict("an endpoint that has gone silent", _FAULT, _ANYWHERE, _HOP, _YES, _NO),
    Kind.SILENCE:            Verdict("silence in mid-answer", _FAULT, _NEVER, _HOP, _YES, _NO),
    Kind.OVERTIME:           Verdict("no end in time", _FAULT, _NEVER, _HOP, _NO, _NO),
    Kind.BROKEN:             Verdict("a broken answer", _FAULT, _ANYWHERE, _HOP, _YES, _NO),
    Kind.INVALID:            Verdict("an invalid answer", _FAULT, _ELSEWHERE, _HOP, _YES, _NO),
    Kind.TOO_LARGE:          Verdict("too large an answer", _NEUTRAL, _NEVER, _NO_HOP, _NO, _NO),
    Kind.RATE_LIMITED:       Verdict("429", _BUSY, _ANYWHERE, _MAY_HOP, _YES, _YES),
    Kind.OVERLOADED:         Verdict("503 or 529", _BUSY, _ANYWHERE, _HOP, _YES, _YES),
    Kind.BAD_GATEWAY:        Verdict("502 or 504", _FAULT, _ANYWHERE, _HOP, _YES, _YES),
    Kind.ENGINE_ERROR:       Verdict("another 5xx", _FAULT, _ELSEWHERE, _HOP, _YES, _NO),
    Kind.UNSUPPORTED:        Verdict("501 or 505", _NEUTRAL, _NEVER, _HOP, _YES, _NO),
    Kind.REQUEST_BLAMED:     Verdict("a 5xx that blames the request", _NEUTRAL, _NEVER, _NO_HOP, _NO, _NO),
    Kind.REQUEST_TIMEOUT:    Verdict("408", _NEUTRAL, _NEVER, _NO_HOP, _NO, _YES),
    Kind.REQUEST_REFUSED:    Verdict("another 4xx", _NEUTRAL, _NEVER, _NO_HOP, _NO, _NO),
    Kind.OTHER:              Verdict("other refusals of the router", _NEUTRAL, _NEVER, _NO_HOP, _NO, _NO),
}
# fmt: on

_CONNECTIONS = {
    "refused": Kind.CONNECTION_REFUSED,
    "timeout": Kind.CONNECT_TIMEOUT,
    "stale": Kind.STALE_CONNECTION,
    "lost": Kind.CONNECTION_LOST,
}
_PHASES = {"first token": Kind.NO_FIRST_TOKEN, "silent": Kind.GONE_SILENT, "idle": Kind.SILENCE, "total": Kind.OVERTIME}
_STATUSES = {
    408: Kind.REQUEST_TIMEOUT,
    429: Kind.RATE_LIMITED,
    501: Kind.UNSUPPORTED,
    502: Kind.BAD_GATEWAY,
    503: Kind.OVERLOADED,
    504: Kind.BAD_GATEWAY,
    505: Kind.UNSUPPORTED,
    529: Kind.OVERLOADED,  # Anthropic's word for 503
}


def kind_of(error: RouterError) -> Kind:
    """The row of an error."""
    kind = Kind.OTHER
    match error:
        case UpstreamTimeout():
            kind = _PHASES[error.phase]
        case OutOfResources():
            kind = Kind.OUT_OF_RESOURCES
        case UpstreamUnreachable():
            kind = _CONNECTIONS[error.how]
        case UpstreamBroken():
            kind = Kind.BROKEN
        case UpstreamInvalid() if error.http_status < 500:
            kind = Kind.TOO_LARGE if error.too_large else Kind.INVALID
        case UpstreamRefused(blames_request=True) if error.http_status not in _STATUSES:
            kind = Kind.REQUEST_BLAMED
        case UpstreamInvalid() | UpstreamRefused():
            status = error.http_status
            kind = _STATUSES.get(status, Kind.ENGINE_ERROR if status >= 500 else Kind.REQUEST_REFUSED)
        case UnsupportedByBackend():
            kind = Kind.NOT_SERVED
        case NoHealthyEndpoint() | QueueFull() | RequestQuarantined():
            kind = Kind.NO_ROOM
    return kind


def is_fatal(error: RouterError, death: bytes) -> bool:
    """Whether the engine seems to have broken under the request: the connection is lost, or its server says so.

    `death` is what the body of a 500 has in it then; empty where that is not known.
    """
    match error:
        case UpstreamUnreachable():
            return error.sent
        case UpstreamBroken():
            return True
        case UpstreamRefused():
            return error.http_status == 500 and death != b"" and death in error.body
    return False


def verdict_of(error: RouterError) -> Verdict:
    """What follows from an error."""
    return VERDICTS[kind_of(error)]


def goes_on(error: RouterError, *, on_rate_limit: bool) -> bool:
    """Whether the route's next target is asked after this error."""
    return _hops(verdict_of(error), on_rate_limit=on_rate_limit)


def occasions(*, on_rate_limit: bool) -> str:
    """When a call goes on to the next target while its client has seen nothing, for people."""
    return ", ".join(verdict.what for verdict in VERDICTS.values() if _hops(verdict, on_rate_limit=on_rate_limit))


def hint_of(error: RouterError) -> str | None:
    """The engine's Retry-After in its own words, where it says when to come back."""
    if isinstance(error, UpstreamRefused | UpstreamInvalid) and verdict_of(error).hint:
        return error.retry_after
    return None


def _hops(verdict: Verdict, *, on_rate_limit: bool) -> bool:
    return verdict.fallback is FallbackRule.ALWAYS or (on_rate_limit and verdict.fallback is FallbackRule.ON_RATE_LIMIT)
