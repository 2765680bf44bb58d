"""What the facade reads from a request's headers: identity, trace and time limit."""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lexora_contract.access import CREDENTIALS, FOREIGN_PAGE
from lexora_contract.limits import MAX_FORWARDED, MAX_TRACE
from lexora_contract.port import CallContext, Flow
from lexora_contract.request_ids import is_request_id, new_request_id
from lexora_gateway.asgi_types import certificate_of, headers_of
from lexora_gateway.errors import Refused, invalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from lexora_gateway.asgi_types import HeaderList, Headers, Scope
    from lexora_gateway.buffered import BufferedBytes
    from lexora_gateway.client_side import ClientSide

# A longer value would make the gRPC call itself fail, so it is dropped instead.
_TRACE_VALUE = re.compile(rb"[ -~]{1,%d}" % MAX_TRACE)
_LEAST_SECONDS = 0.001
USER = b"x-lexora-user"
TENANT = b"x-lexora-tenant"
_FORWARDED = b"x-forwarded-for"
_CREDENTIALS = tuple((name.encode(), name) for name in CREDENTIALS)

Metadata = tuple[tuple[str, str], ...]


def trust_none(_: str) -> bool:
    """No address is trusted."""
    return False


def nearest(hops: str) -> str:
    """The last of the addresses that a request came by, which is the client's own where no proxy is trusted."""
    return hops.rpartition(",")[2]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of every request: bytes of its body, seconds of its call, and of a silence inside its body; and of all bodies.

    After `stream_keepalive` seconds of silence a stream gets a sign of life; None: never. `trusts` says by an address whether
    a client is a proxy whose x-lexora-user and -tenant count; `client_of` gives the client behind such proxies, from a list
    of hops.
    """

    max_body_bytes: int
    max_request_timeout: float
    body_silence: float
    buffered: BufferedBytes
    stream_keepalive: float | None = None
    trusts: Callable[[str], bool] = trust_none
    client_of: Callable[[str], str] = nearest


def request_id_of(headers: Headers) -> str:
    """The client's x-request-id if it can be one, else a new one."""
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if is_request_id(given) else new_request_id()


def timeout_of(headers: Headers, max_timeout: float) -> float | None:
    """Seconds of x-request-timeout, capped; None without one. Raises Refused for what is not a number above 0."""
    given = headers.get(b"x-request-timeout")
    return None if given is None else min(_seconds(given), max_timeout)


def context_of(
    headers: Headers,
    timeout: float | None,
    hops: Metadata = (),
    flow: Flow | None = None,
    certificate: tuple[str, ...] = (),
) -> CallContext:
    """Trace, credentials and time limit of a call, how it came here, and the back-pressure of its client."""
    metadata = (*_trace(headers), *hops) if b"traceparent" in headers else hops
    for header, name in _CREDENTIALS:
        if header in headers:
            metadata = (*metadata, (name, headers[header].decode("latin-1")))
    return CallContext(metadata, timeout, flow=flow or Flow(), certificate=certificate)


def scope_context(scope: Scope, timeout: float) -> CallContext:
    """The context of a question that an ASGI server brings."""
    client, headers = scope.get("client"), headers_of(scope)
    hops = _hops(client[0] if client else "", headers, scope["headers"])
    if b"origin" in headers:
        hops = (*hops, FOREIGN_PAGE)
    return context_of(headers, timeout, hops, certificate=certificate_of(scope))


def hops_of(client: ClientSide) -> Metadata:
    """How a request came here, as a proxy says it: `x-forwarded-for` with the client's address added at the right end."""
    return _hops(client.address, client.headers, client.pairs)


def _hops(address: str, headers: Headers, pairs: HeaderList) -> Metadata:
    hops = _forwarded(address, headers, pairs)
    return hops if len(pairs) == len(headers) else (*hops, *_repeated_credentials(pairs))


def _repeated_credentials(pairs: HeaderList) -> Metadata:
    """Every value of a credential's header that is there more than once: which of them counts the facade does not choose."""
    names = [name for name, _ in pairs]
    return tuple(
        (name, value.decode("latin-1"))
        for header, name in _CREDENTIALS
        if names.count(header) > 1
        for given, value in pairs
        if given == header
    )


def _forwarded(address: str, headers: Headers, pairs: HeaderList) -> Metadata:
    if _FORWARDED not in headers:
        return (("x-forwarded-for", address),) if address else ()
    lines = b",".join(value for name, value in pairs if name == _FORWARDED)[-MAX_FORWARDED:]
    before = lines.decode("latin-1")
    return (("x-forwarded-for", f"{before},{address}" if before.isascii() and before.isprintable() else address),)


def check_identity(client: ClientSide, trusts: Callable[[str], bool]) -> None:
    """Drop an x-lexora-user and -tenant that no trusted proxy sent. Raises Refused (400) for more than one."""
    for name in (USER, TENANT):
        if name in client.headers:
            _check_named(client, name, trusts)


def _check_named(client: ClientSide, header: bytes, trusts: Callable[[str], bool]) -> None:
    if not trusts(client.address):
        del client.headers[header]
    elif sum(name == header for name, _ in client.pairs) > 1:
        name = header.decode()
        del client.headers[header]  # it is unclear which hop set each of them
        raise Refused(invalid(f"{name} is there more than once; a proxy must replace it, not add another one.", name))


def user_of(headers: Headers) -> str:
    """The user that a trusted proxy let in; empty for none."""
    return _named(headers, USER)


def named_tenant_of(headers: Headers) -> str:
    """The tenant that a trusted proxy let in; empty for none."""
    return _named(headers, TENANT)


def charged_of(headers: Headers) -> str:
    """The account that a trusted proxy let in, tenant or user; empty for none."""
    return named_tenant_of(headers) or user_of(headers)


def _named(headers: Headers, header: bytes) -> str:
    value = headers.get(header)
    return "" if value is None else value.decode("utf-8", "replace").strip()


class Clock:
    """The time of one request, its body included, from its head on. Raises Refused as `timeout_of` does."""

    __slots__ = ("_end", "_max_timeout")

    def __init__(self, headers: Headers, max_timeout: float) -> None:
        timeout = timeout_of(headers, max_timeout)
        self._max_timeout = max_timeout
        self._end = None if timeout is None else asyncio.get_running_loop().time() + timeout

    @property
    def end(self) -> float:
        """When a body whose reading begins now must have arrived, in the event loop's time."""
        return asyncio.get_running_loop().time() + self._max_timeout if self._end is None else self._end

    def remaining(self) -> float | None:
        """Seconds left for the call, above 0; None without a limit."""
        if self._end is None:
            return None
        # A call whose time is over is for the router to refuse, as any other deadline.
        return max(self._end - asyncio.get_running_loop().time(), _LEAST_SECONDS)


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
