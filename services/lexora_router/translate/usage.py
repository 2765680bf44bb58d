"""Tokens of a call, as engines of different schools count them."""

import contextlib
from typing import Annotated

import msgspec

from lexora.v1 import common_pb2
from lexora_router.handler import Usage

# Counts come as integers, from some engines as floats; beyond 2**53 they are nonsense.
Count = Annotated[float, msgspec.Meta(ge=0, le=2**53)] | None


class _Details(msgspec.Struct, gc=False):
    cached_tokens: Count = None
    reasoning_tokens: Count = None


class UsageJson(msgspec.Struct, gc=False):
    """The `usage` object of chat completions, of Responses or of Anthropic's messages."""

    prompt_tokens: Count = None
    completion_tokens: Count = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens: Count = None
    output_tokens: Count = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    cache_read_input_tokens: Count = None
    cache_creation_input_tokens: Count = None

    def counted(self) -> Usage:
        """The same in the router's words; what the engine did not say is 0."""
        inside = self.prompt_tokens_details or self.input_tokens_details or _Details()
        outside = self.completion_tokens_details or self.output_tokens_details or _Details()
        # Anthropic counts the cached part of a prompt apart from `input_tokens`.
        apart = (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)
        asked = self.prompt_tokens if self.prompt_tokens is not None else (self.input_tokens or 0) + apart
        given = self.completion_tokens if self.completion_tokens is not None else self.output_tokens
        return Usage(
            input_tokens=int(asked),
            output_tokens=int(given or 0),
            cached_tokens=int(inside.cached_tokens or self.cache_read_input_tokens or 0),
            reasoning_tokens=int(outside.reasoning_tokens or 0),
        )


class _Nested(msgspec.Struct, gc=False):
    usage: UsageJson | None = None


class _Carrier(msgspec.Struct, gc=False):
    usage: UsageJson | None = None
    response: _Nested | None = None
    message: _Nested | None = None


_carriers = msgspec.json.Decoder(_Carrier)


def usage_of(body: bytes) -> Usage | None:
    """Usage in an answer or in one event of a stream (also under `response` or `message`); None when it has none."""
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        carrier = _carriers.decode(body)
        for holder in (carrier, carrier.response, carrier.message):
            if holder is not None and holder.usage is not None:
                return holder.usage.counted()
    return None


def merge_usage(seen: Usage | None, found: Usage) -> Usage:
    """Usage after one more event of a stream: counts only grow, and Anthropic's tell input and output apart."""
    if seen is None:
        return found
    return Usage(
        input_tokens=max(seen.input_tokens, found.input_tokens),
        output_tokens=max(seen.output_tokens, found.output_tokens),
        cached_tokens=max(seen.cached_tokens, found.cached_tokens),
        reasoning_tokens=max(seen.reasoning_tokens, found.reasoning_tokens),
    )


def usage_message(usage: Usage | None) -> common_pb2.Usage | None:
    """The contract's form of it."""
    if usage is None:
        return None
    return common_pb2.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )
