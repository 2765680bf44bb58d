"""Errors as clients of Anthropic's Messages API read them.

https://docs.anthropic.com/en/api/errors (a type by status; 529 when the service, and not its client, has too much to do)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from lexora_gateway.errors import Failure

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


def as_answer(failure: Failure, request_id: str) -> Failure:
    """The same failure with Anthropic's status and body; an engine's own stays as it is."""
    if failure.raw is not None:
        return failure
    return replace(failure, status=_status(failure), raw=msgspec.json.encode(error(failure) | {"request_id": request_id}))


def error(failure: Failure) -> dict[str, Any]:
    """Anthropic's error object, which events carry too."""
    status = _status(failure)
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": failure.message}}


def _status(failure: Failure) -> int:
    return OVERLOADED if failure.code in _OVERLOADED_CODES else failure.status
