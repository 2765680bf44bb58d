"""OpenAI's x-ratelimit-* headers, from where the tenant stands with its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lexora_contract.words import duration

if TYPE_CHECKING:
    from lexora_contract.answer import BucketState, RateLimitState
    from lexora_gateway.asgi_types import HeaderList

PREFIX = "x-ratelimit-"
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


def _bucket(bucket: BucketState, limit: bytes, remaining: bytes, reset: bytes) -> HeaderList:
    return [
        (limit, b"%d" % bucket.limit),
        # Of a balance that a reservation took below zero nothing can be spent.
        (remaining, b"%d" % max(bucket.remaining, 0)),
        (reset, duration(bucket.reset).encode()),
    ]
