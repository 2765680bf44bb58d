"""Errors as clients of Anthropic's Messages API read them.

https://docs.anthropic.com/en/api/errors (a type by status; 529 when the service, and not its client, has too much to do)
"""

from typing import Any, Protocol

OVERLOADED = 529
# A full queue is no limit of the client's own, which 429 would say.
_OVERLOADED_CODES = frozenset(("queue_full", "no_healthy_endpoint", "draining", "overloaded"))
_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    OVERLOADED: "overloaded_error",
}


class Failed(Protocol):
    """What is needed of a failure."""

    status: int
    message: str
    code: str | None


def status_of(failure: Failed) -> int:
    """Anthropic's status for it."""
    return OVERLOADED if failure.code in _OVERLOADED_CODES else failure.status


def error(failure: Failed) -> dict[str, Any]:
    """Anthropic's error object, which events carry too."""
    status = status_of(failure)
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": failure.message}}
