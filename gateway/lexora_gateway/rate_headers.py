"""OpenAI's x-ratelimit-* headers, from where the tenant stands with its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lexora_contract.answer import BucketState, RateLimitState
    from lexora_gateway.asgi_types import HeaderList

PREFIX = "x-ratelimit-"
_NANOS_PER_MS = 1_000_000
_MS_PER_MINUTE = 60_000
_REQUESTS, _TOKENS = (
    (b"x-ratelimit-limit-" + kind, b"x-ratelimit-remaining-" + kind, b"x-ratelimit-reset-" + kind)
    for kind in (b"requests", b"tokens")
)


def rate_limit_headers(state: RateLimitState) -> HeaderList:
    """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}`; nothing for what is not limited."""
    found: HeaderList = []
    if state.requests is not None:
        found += _bucket(state.requests, *_REQUESTS)
    if state.tokens is not None:
        found += _bucket(state.tokens, *_TOKENS)
    return found


def duration(milliseconds: int) -> bytes:
    """A duration as OpenAI writes it: `0s`, `12ms`, `1s`, `7.66s`, `6m0s`, `1h0m0s`."""
    if 0 < milliseconds < 1000:
        return b"%dms" % milliseconds
    minutes, rest = divmod(milliseconds, _MS_PER_MINUTE)
    seconds, fraction = divmod(rest, 1000)
    text = (b"%d.%03d" % (seconds, fraction)).rstrip(b"0") if fraction else b"%d" % seconds
    if minutes < 60:
        return b"%dm%ss" % (minutes, text) if minutes else text + b"s"
    return b"%dh%dm%ss" % (*divmod(minutes, 60), text)


def _bucket(bucket: BucketState, limit: bytes, remaining: bytes, reset: bytes) -> HeaderList:
    return [
        (limit, b"%d" % bucket.limit),
        # A balance that a reservation took below zero is nobody's to spend.
        (remaining, b"%d" % max(bucket.remaining, 0)),
        (reset, duration(_milliseconds(bucket.reset))),
    ]


def _milliseconds(seconds: float) -> int:
    # Rounded up: a client that comes back at that time finds the bucket full. In nanoseconds, for 0.07 s are 70 ms.
    return max(-(-round(seconds * 1e9) // _NANOS_PER_MS), 0)
