"""What the facade reads from a request's headers: identity, trace and time limit."""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING

from lexora_gateway.errors import Refused, invalid
from lexora_gateway.router_port import CallContext

if TYPE_CHECKING:
    from lexora_gateway.asgi import Headers
    from lexora_gateway.buffered import BufferedBytes

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
# A longer value would make the gRPC call itself fail, so it is dropped instead.
_TRACE_VALUE = re.compile(rb"[ -~]{1,2048}")
_LEAST_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of every request: bytes of its body, seconds of its call, and of a silence inside its body; and of all bodies.

    After `stream_keepalive` seconds of silence a stream gets a sign of life; None: never.
    """

    max_body_bytes: int
    max_request_timeout: float
    body_silence: float
    buffered: BufferedBytes
    stream_keepalive: float | None = None


def request_id_of(headers: Headers) -> str:
    """The client's x-request-id if it is 1 to 128 visible ASCII characters, else a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return token_hex(16)


def timeout_of(headers: Headers, max_timeout: float) -> float | None:
    """Seconds of x-request-timeout, capped; None without one. Raises Refused for what is not a number above 0."""
    given = headers.get(b"x-request-timeout")
    return None if given is None else min(_seconds(given), max_timeout)


def context_of(headers: Headers, timeout: float | None) -> CallContext:
    """Trace and time limit of a call."""
    return CallContext(_trace(headers) if b"traceparent" in headers else (), timeout)


class Clock:
    """The time of one request, which runs from its head on, the body's arrival included.

    `end` is when its body must have arrived, in the event loop's time. Raises Refused as `timeout_of` does.
    """

    __slots__ = ("_limited", "_loop", "end")

    def __init__(self, headers: Headers, max_timeout: float) -> None:
        timeout = timeout_of(headers, max_timeout)
        self._limited = timeout is not None
        self._loop = asyncio.get_running_loop()
        self.end = self._loop.time() + (max_timeout if timeout is None else timeout)

    def remaining(self) -> float | None:
        """Seconds left for the call, above 0; None without a limit."""
        if not self._limited:
            return None
        # A call whose time is over is for the router to refuse, as any other deadline.
        return max(self.end - self._loop.time(), _LEAST_SECONDS)


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
        failure = invalid("x-request-timeout must be a number of seconds above 0.", "x-request-timeout")
        # The body has not been read yet.
        failure.headers.append((b"connection", b"close"))
        raise Refused(failure)
    return seconds
