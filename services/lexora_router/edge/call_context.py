"""What surrounds a call, and what of it the router reads."""

from collections.abc import Callable, Iterable
from typing import NoReturn, Protocol

from lexora_router.errors import InvalidRequest
from lexora_router.policy.callers import TrustedProxies, network_of

# Longer ones would only make the engine refuse the head of its request.
MAX_TRACE_LENGTH = 2048
MAX_TOLD_LENGTH = 400
# What fits into the metadata that a gRPC client accepts by default (8 KiB), beside the rest.
DEFAULT_ERROR_BYTES = 3072
USER = "x-lexora-user"
MAX_FORWARDED = 1024  # characters from the right, where the nearest proxies are


class Context(Protocol):
    """What surrounds a call: metadata (lower-case names), seconds left until its deadline, None for no limit, and who asks.

    `peer` is the address at the other end of the wire, empty in this process and for a unix socket.
    """

    @property
    def metadata(self) -> Iterable[tuple[str, str]]: ...  # noqa: D102

    @property
    def timeout(self) -> float | None: ...  # noqa: D102

    @property
    def peer(self) -> str: ...  # noqa: D102

    def take_body(self) -> bytes:
        """The body of the request's raw call if it comes beside the message. It is given away, not copied."""


def trace_of(context: Context) -> tuple[tuple[str, str], ...]:
    """The trace headers, each at most once, without those that are too long."""
    return tuple({name: value for name, value in context.metadata if _is_trace(name, value)}.items())


def identity(context: Context, proxies: TrustedProxies) -> tuple[str, str]:
    """The user that a trusted proxy let in, empty for none, and the client's network, empty where it has no address."""
    hops, user, trusted = "", "", proxies.trusts(context.peer)
    for name, value in context.metadata if trusted else ():
        if name == "x-forwarded-for":
            hops = f"{hops},{value}" if hops else value
        elif name == USER:
            user = value.strip()
    return user, network_of(proxies.client(context.peer, hops[-MAX_FORWARDED:]))


def check_identity(context: Context) -> None:
    """Raise InvalidRequest for a user that is named twice: the second may be the client's own word, passed on by a proxy."""
    if sum(name == USER for name, _ in context.metadata) > 1:
        raise InvalidRequest(f"{USER} is there more than once; a proxy must replace it, not add another one.", USER)


def error_bytes(context: Context) -> int:
    """How much of an upstream's error the caller can take; our own facade says, stock clients get the safe default."""
    for name, value in context.metadata:
        if name == "x-lexora-error-bytes" and value.isdigit():
            return min(int(value), 1024 * 1024)
    return DEFAULT_ERROR_BYTES


def announces_streams(context: Context) -> bool:
    """Whether the caller wants a message, with the receipt so far, as soon as its call is known to stream."""
    return ("x-lexora-announce", "stream") in context.metadata


def refuse_empty(context: Context) -> Callable[[object], NoReturn]:
    """Who serves a call that asks nothing. Our own facade makes one of each request that it refuses itself, and says why."""

    def refuse(_: object) -> NoReturn:
        told = next((value for name, value in context.metadata if name == "x-lexora-refused"), "")
        words = told[:MAX_TOLD_LENGTH] if told.isprintable() else ""
        raise InvalidRequest(words or "One of chat, completion and raw must be set.", "input")

    return refuse


def _is_trace(name: str, value: str) -> bool:
    return name in ("traceparent", "tracestate") and len(value) <= MAX_TRACE_LENGTH
