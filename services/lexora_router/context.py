"""What surrounds a call, and what of it the router reads."""

from collections.abc import Callable, Iterable
from typing import NoReturn, Protocol

from lexora_router.errors import InvalidRequest

# Longer ones would only make the engine refuse the head of its request.
MAX_TRACE_LENGTH = 2048
MAX_TOLD_LENGTH = 400
# What fits into the metadata that a gRPC client accepts by default (8 KiB), beside the rest.
DEFAULT_ERROR_BYTES = 3072


class Context(Protocol):
    """What surrounds a call: metadata (lower-case names) and the seconds left until its deadline, None for no limit."""

    @property
    def metadata(self) -> Iterable[tuple[str, str]]: ...  # noqa: D102

    @property
    def timeout(self) -> float | None: ...  # noqa: D102

    def take_body(self) -> bytes:
        """The body of the request's `openai` call if it comes beside the message. It is given away, not copied."""


def trace_of(context: Context) -> tuple[tuple[str, str], ...]:
    """The trace headers, each at most once, without those that are too long."""
    return tuple({name: value for name, value in context.metadata if _is_trace(name, value)}.items())


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
        raise InvalidRequest(words or "One of chat, completion and openai must be set.", "input")

    return refuse


def _is_trace(name: str, value: str) -> bool:
    return name in ("traceparent", "tracestate") and len(value) <= MAX_TRACE_LENGTH
