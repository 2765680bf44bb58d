"""Every error that the router can raise.

RouterError                 status  reason
├── InvalidRequest             400  INVALID_REQUEST        malformed, wrong-typed or incomplete
├── UnsupportedByBackend       400  UNSUPPORTED_BY_BACKEND the engines of this model's backend have no such thing
├── Unauthenticated            401  UNAUTHENTICATED        no credentials, or none that holds
│   └── TooManyAttempts        429  TOO_MANY_ATTEMPTS      the same, after too many failed attempts from the same address
├── PermissionDenied           403  PERMISSION_DENIED      the credentials hold, and do not allow this
├── ModelNotFound              404  MODEL_NOT_FOUND        no such model, and no default backend
├── NotFound                   404  NOT_FOUND              an endpoint of the engine that is not relayed
├── TooLarge                   413  REQUEST_TOO_LARGE
├── ClientStalled              499  CLIENT_STALLED         the client read none of its answer for too long
├── RateLimited                429  RATE_LIMITED           the tenant is over its rate limit
├── QueueFull                  429  QUEUE_FULL             no room to wait, or too long a wait
├── Unimplemented              501  UNIMPLEMENTED
├── ClassifierDisabled         503  CLASSIFIER_DISABLED    tasks are not classified, or there is no default model
├── NoHealthyEndpoint          503  NO_HEALTHY_ENDPOINT
├── RequestQuarantined         503  REQUEST_QUARANTINED    the same request has failed again and again, wherever it went
├── AccessUnavailable          503  ACCESS_UNAVAILABLE     whether the credentials hold cannot be found out now
├── Draining                   503  DRAINING
├── DeadlineExceeded           504  DEADLINE_EXCEEDED      the client's own deadline passed
└── UpstreamFailure                                        an attempt on an endpoint failed
    ├── UpstreamRefused         as  UPSTREAM_ERROR         the engine answered with an error status of its own
    ├── OutOfResources         503  OUT_OF_RESOURCES       this machine lacks what a connection takes
    ├── UpstreamUnreachable    502  UPSTREAM_UNREACHABLE   no connection, or it broke before the answer
    ├── UpstreamInvalid        502  UPSTREAM_INVALID       an invalid answer: HTML, bad JSON, nothing
    ├── UpstreamBroken         502  UPSTREAM_BROKEN        the answer stopped, or said so itself
    └── UpstreamTimeout        504  UPSTREAM_TIMEOUT       connected, but silent for too long

`status` is the HTTP status that a client sees. Messages are for clients: they name what happened, where, and what to do, and
hold no secret and no stack trace. A cancelled call raises `asyncio.CancelledError`, as everywhere.
"""

from typing import ClassVar

from lexora_contract.key_text import without_secrets
from lexora_contract.reasons import REASONS


class RouterError(Exception):
    """A call that ends in an error; `message` is for the client."""

    status: ClassVar[int] = 500
    reason: ClassVar[str] = "INTERNAL"

    def __init_subclass__(cls) -> None:
        cls.status = REASONS[cls.reason].status

    def __init__(self, message: str) -> None:
        self.message = without_secrets(message)  # it may repeat a name that a client chose
        super().__init__(self.message)


class InvalidRequest(RouterError):
    """The request is malformed, wrong-typed or incomplete; `param` names the field, if one can be named."""

    reason = "INVALID_REQUEST"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class UnsupportedByBackend(RouterError):
    """The request is in order, but the model's backend does not have what it asks for; `param` names the field."""

    reason = "UNSUPPORTED_BY_BACKEND"

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class Unauthenticated(RouterError):
    """No credentials, or none that holds. The message names no part of what was shown.

    `cause`, for logs and metrics: "missing", "malformed", "several", "unknown", "expired", "revoked", or one of tokens.
    """

    reason = "UNAUTHENTICATED"

    def __init__(self, message: str, cause: str = "unknown") -> None:
        super().__init__(message)
        self.cause = cause


class TooManyAttempts(Unauthenticated):
    """The credentials do not hold, after too many that did not from the same address; `retry_after` is in seconds."""

    reason = "TOO_MANY_ATTEMPTS"

    def __init__(self, cause: str, retry_after: float) -> None:
        super().__init__("These credentials do not hold, and too many failed attempts came from this address.", cause)
        self.retry_after = retry_after


class PermissionDenied(RouterError):
    """The credentials hold, and do not allow this."""

    reason = "PERMISSION_DENIED"


class AccessUnavailable(RouterError):
    """Whether the credentials hold cannot be found out now; it may be in `retry_after` seconds."""

    reason = "ACCESS_UNAVAILABLE"

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelNotFound(RouterError):
    """No backend serves this model and no default backend takes it."""

    reason = "MODEL_NOT_FOUND"

    def __init__(self, model: str) -> None:
        super().__init__(f"The model `{model[:200]}` does not exist. GET /v1/models lists the models that can be asked.")
        self.param = "model"


class NotFound(RouterError):
    """The path is not one of the endpoints that are relayed."""

    reason = "NOT_FOUND"


class TooLarge(RouterError):
    """The request is larger than the configured bound."""

    reason = "REQUEST_TOO_LARGE"


class ClientStalled(RouterError):
    """The client read none of its answer for so long that the call was ended; layers see a client that left."""

    reason = "CLIENT_STALLED"


class RateLimited(RouterError):
    """The tenant is over its rate limit; `retry_after` is in seconds, `subject` names the tenant and the bucket."""

    reason = "RATE_LIMITED"

    def __init__(self, message: str, retry_after: float, subject: str) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.subject = subject


class QueueFull(RouterError):
    """The call was not admitted; `retry_after` is in seconds.

    `cause`: the queue is full ("queue_full"), the wait was too long ("queue_timeout"), or would be for the call's deadline
    ("deadline").
    """

    reason = "QUEUE_FULL"

    def __init__(self, message: str, retry_after: float, cause: str = "queue_full") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.cause = cause


class Unimplemented(RouterError):
    """The contract has it, this version does not."""

    reason = "UNIMPLEMENTED"


class ClassifierDisabled(RouterError):
    """Tasks are not classified here; the message says what the configuration lacks."""

    reason = "CLASSIFIER_DISABLED"


class NoHealthyEndpoint(RouterError):
    """No endpoint of the backend takes calls now; one may do so in `retry_after` seconds."""

    reason = "NO_HEALTHY_ENDPOINT"

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RequestQuarantined(RouterError):
    """This request has failed wherever it went, at endpoints that answer others; it may be tried in `retry_after` seconds."""

    reason = "REQUEST_QUARANTINED"

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Draining(RouterError):
    """The router is shutting down and takes no new calls."""

    reason = "DRAINING"


class DeadlineExceeded(RouterError):
    """The client's deadline passed."""

    reason = "DEADLINE_EXCEEDED"


class UpstreamFailure(RouterError):
    """One attempt on one endpoint failed; `sent` when the engine may have had the request."""

    sent = True


class UpstreamRefused(UpstreamFailure):
    """The engine answered with an HTTP error; status, headers and body are its own and pass through untouched.

    `blames_request`: the body says that the request is at fault, whatever the status says.
    """

    reason = "UPSTREAM_ERROR"

    def __init__(
        self,
        status: int,
        content_type: str,
        body: bytes,
        headers: tuple[tuple[str, str], ...] = (),
        *,
        blames_request: bool = False,
    ) -> None:
        super().__init__(f"the engine answered {status}")
        self.http_status = status
        self.content_type = content_type
        self.body = body
        self.headers = headers
        self.blames_request = blames_request

    @property
    def retry_after(self) -> str | None:
        """The engine's own Retry-After, in its own words."""
        return next((value for name, value in self.headers if name == "retry-after"), None)


class OutOfResources(UpstreamFailure):
    """This machine lacks what a connection takes: file descriptors, memory, ports. The endpoint was not asked."""

    reason = "OUT_OF_RESOURCES"
    sent = False


class UpstreamUnreachable(UpstreamFailure):
    """No connection to the endpoint, or it broke before the answer began.

    `how`: the connection was "refused", not made in time ("timeout"), "lost" after the request was sent, or "stale": a kept one
    that the engine closed as the request was on its way.
    """

    reason = "UPSTREAM_UNREACHABLE"

    def __init__(self, message: str, how: str = "lost") -> None:
        super().__init__(message)
        self.how = how
        self.sent = how == "lost"


class UpstreamInvalid(UpstreamFailure):
    """The endpoint answered something that no engine should: HTML, bad JSON, an empty 200, a redirect.

    `http_status` is what it answered, 0 if that is beside the point; `retry_after` is its own hint, in its own words.
    `too_large`: the answer may be right, but is larger than `server.max_response_bytes`.
    """

    reason = "UPSTREAM_INVALID"

    def __init__(self, message: str, http_status: int = 0, retry_after: str | None = None, *, too_large: bool = False) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.retry_after = retry_after
        self.too_large = too_large


class UpstreamBroken(UpstreamFailure):
    """The answer stopped before its end; `event` is the engine's own error payload (JSON), empty if it sent none."""

    reason = "UPSTREAM_BROKEN"

    def __init__(self, message: str, event: bytes = b"") -> None:
        super().__init__(message)
        self.event = event


class UpstreamTimeout(UpstreamFailure):
    """The engine was silent for longer than the `seconds` allowed; `phase` is "first token", "silent", "idle" or "total".

    "silent": sooner than the first token had to come, for several calls wait there for too long and nothing is heard.
    """

    reason = "UPSTREAM_TIMEOUT"

    def __init__(self, message: str, phase: str, seconds: float = 0.0) -> None:
        super().__init__(message)
        self.phase = phase
        self.seconds = seconds


def http_status(error: RouterError) -> int:
    """HTTP status that the client sees for this error."""
    return error.http_status if isinstance(error, UpstreamRefused) else error.status
