"""What the facade reads from a request's headers: identity, trace and time limit."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING

from lexora_gateway.errors import Refused, invalid
from lexora_gateway.router_port import CallContext

if TYPE_CHECKING:
    from lexora_gateway.asgi import Headers

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
# A longer value would make the gRPC call itself fail, so it is dropped instead.
_TRACE_VALUE = re.compile(rb"[ -~]{1,2048}")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of every request: bytes of its body, seconds of its call."""

    max_body_bytes: int
    max_request_timeout: float


def request_id_of(headers: Headers) -> str:
    """The client's x-request-id if it is 1 to 128 visible ASCII characters, else a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return token_hex(16)


def context_of(headers: Headers, max_timeout: float, default_timeout: float | None = None) -> CallContext:
    """Trace and time limit of a call. Raises Refused for an x-request-timeout that is not a number above 0."""
    metadata: tuple[tuple[str, str], ...] = ()
    if b"traceparent" in headers:
        metadata = _trace(headers)
    given = headers.get(b"x-request-timeout")
    if given is None:
        return CallContext(metadata, default_timeout)
    return CallContext(metadata, min(_seconds(given), max_timeout))


def _trace(headers: Headers) -> tuple[tuple[str, str], ...]:
    found = ((name, headers.get(name)) for name in (b"traceparent", b"tracestate"))
    return tuple(
        (name.decode(), value.decode("ascii")) for name, value in found if value is not None and _TRACE_VALUE.fullmatch(value)
    )


def _seconds(value: bytes) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise Refused(invalid("x-request-timeout must be a number of seconds above 0.", "x-request-timeout"))
    return seconds
