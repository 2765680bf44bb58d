"""From the router's errors to what a caller of the port sees."""

import time

from lexora_contract.answer import EngineError, Receipt
from lexora_contract.port import CallFailed
from lexora_contract.reasons import engine_code
from lexora_router.errors import (
    AccessUnavailable,
    Draining,
    NoHealthyEndpoint,
    OutOfResources,
    QueueFull,
    RateLimited,
    RequestQuarantined,
    RouterError,
    TooManyAttempts,
    UpstreamBroken,
    UpstreamRefused,
)
from lexora_router.payload.error_bodies import readable
from lexora_router.payload.retry_after import parse
from lexora_router.policy.failures import hint_of

RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 86_400.0
# A message travels beside the details, percent-encoded, and both must fit into the metadata that clients accept.
MAX_MESSAGE_BYTES = 512


def failed(error: RouterError, receipt: Receipt, trace_id: str = "") -> CallFailed:
    """The failed call that an error makes."""
    return CallFailed(
        error.reason,
        _message(error),
        code=engine_code(error.http_status) if isinstance(error, UpstreamRefused) else None,
        param=getattr(error, "param", None),
        retry_after=retry_delay(error),
        quota=error.subject if isinstance(error, RateLimited) else "",
        engine=_engine_error(error),
        receipt=receipt,
        trace_id=trace_id,
    )


def bug_in(receipt: Receipt, trace_id: str = "") -> CallFailed:
    """A call that met a bug: no exception text, but an identity to look for in the log, and where the client stands."""
    message = f"Internal error; the log has it under request id {receipt.request_id}."
    shown = Receipt(receipt.request_id, receipt.received_at, rate_limit=receipt.rate_limit)
    return CallFailed("INTERNAL", message, receipt=shown, trace_id=trace_id)


def retry_delay(error: RouterError) -> float | None:
    """Seconds after which trying again makes sense; None when it does not, or when that is not known."""
    match error:
        case RateLimited() | QueueFull() | NoHealthyEndpoint() | RequestQuarantined() | AccessUnavailable() | TooManyAttempts():
            return error.retry_after
        case Draining() | OutOfResources():
            return RETRY_SECONDS
    hint = hint_of(error)
    asked = parse(hint, time.time()) if hint else None
    return None if asked is None else min(asked, MAX_RETRY_SECONDS)


def _engine_error(error: RouterError) -> EngineError | None:
    if isinstance(error, UpstreamRefused):
        return EngineError(error.http_status, error.content_type, error.body, error.headers)
    if isinstance(error, UpstreamBroken) and error.event:
        return EngineError(0, "application/json", error.event)
    return None


def _message(error: RouterError) -> str:
    """What happened, for people; of an engine's own answer what it said."""
    text = readable(error.body) if isinstance(error, UpstreamRefused) else ""
    return _bounded(f"{error.message}: {text}" if text else error.message)


def _bounded(message: str) -> str:
    """The message, or its beginning and its end: a name that a client chose may fill the middle."""
    raw = message.encode("utf-8", "replace")
    if len(raw) <= MAX_MESSAGE_BYTES:
        return message
    half = MAX_MESSAGE_BYTES // 2
    return f"{raw[:half].decode('utf-8', 'ignore')} ... {raw[-half:].decode('utf-8', 'ignore')}"
