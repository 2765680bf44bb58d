"""What one finished call is counted as: the same words in the log, the statistics and the metrics."""

import re
from typing import NamedTuple

from lexora_router.errors import Draining, NoHealthyEndpoint, QueueFull, RateLimited
from lexora_router.handler import Receipt

# The name that all share who get none of their own.
OTHER = "other"

_HOP = re.compile(r"([\w.-]+)->([\w.-]+);reason=(\w+)")


class Hop(NamedTuple):
    """A call that went on to another backend, and the reason of the error that made it."""

    origin: str
    to: str
    reason: str


def hops(receipt: Receipt) -> list[Hop]:
    """The fallbacks of a call, in order."""
    return [Hop(*found) for found in _HOP.findall(receipt.fallback)]


def retries(receipt: Receipt) -> int:
    """Attempts beyond the first, on whatever backend."""
    return max(receipt.attempts - 1, 0)


def rejection(error: BaseException | None) -> str:
    """Why the router itself refused the call for want of room, in one word; empty when it did not."""
    match error:
        case RateLimited():
            return "rate_limit"
        case QueueFull():
            return error.cause
        case NoHealthyEndpoint():
            return "no_healthy_endpoint"
        case Draining():
            return "draining"
    return ""


def wasted(receipt: Receipt) -> int:
    """Output tokens of a call that failed: as counted, else about as many as events were streamed."""
    return receipt.usage.output_tokens if receipt.usage is not None else receipt.events


def time_per_token(receipt: Receipt) -> float | None:
    """Mean time in seconds between the tokens of a stream, from the first to its end; None where there are none between."""
    made = receipt.usage.output_tokens if receipt.usage is not None else receipt.events
    return (receipt.finished_at - receipt.first_event_at) / (made - 1) if made > 1 and receipt.first_event_at else None
