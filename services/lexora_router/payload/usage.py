"""Tokens of a call, as engines of different schools count them."""

from typing import Annotated

import msgspec

from lexora_contract.answer import Usage

# Counts come as integers, from some engines as floats; beyond 2**53 they are nonsense.
Count = Annotated[float, msgspec.Meta(ge=0, le=2**53)] | None


class _Details(msgspec.Struct, gc=False):
    cached_tokens: Count = None
    reasoning_tokens: Count = None
    thinking_tokens: Count = None  # Anthropic's word for the same


_NO_DETAILS = _Details()


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
        inside = self.prompt_tokens_details or self.input_tokens_details or _NO_DETAILS
        outside = self.completion_tokens_details or self.output_tokens_details or _NO_DETAILS
        # Anthropic counts the cached part of a prompt apart from `input_tokens`.
        apart = (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)
        asked = self.prompt_tokens if self.prompt_tokens is not None else (self.input_tokens or 0) + apart
        given = self.completion_tokens if self.completion_tokens is not None else self.output_tokens
        return Usage(
            input_tokens=int(asked),
            output_tokens=int(given or 0),
            cached_tokens=int(inside.cached_tokens or self.cache_read_input_tokens or 0),
            reasoning_tokens=int(outside.reasoning_tokens or outside.thinking_tokens or 0),
        )


def merge_usage(seen: Usage | None, found: Usage) -> Usage:
    """Usage after one more event of a stream: counts only grow, and Anthropic's come in two halves, input and output."""
    if seen is None:
        return found
    return Usage(
        input_tokens=max(seen.input_tokens, found.input_tokens),
        output_tokens=max(seen.output_tokens, found.output_tokens),
        cached_tokens=max(seen.cached_tokens, found.cached_tokens),
        reasoning_tokens=max(seen.reasoning_tokens, found.reasoning_tokens),
    )
