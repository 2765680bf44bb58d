"""Token counts, as each of the engines' APIs writes them."""

import msgspec

from lexora_router.handler import Usage


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class WireUsage(msgspec.Struct):
    """The `usage` object of chat, completions and embeddings, of /v1/responses, and of /v1/messages."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    cache_read_input_tokens: int | None = None


def add_usage(known: Usage | None, wire: WireUsage) -> Usage:
    """What is known after this report: counts in it replace earlier ones, counts that it lacks stay."""
    usage = known or Usage()
    read = wire.prompt_tokens_details or wire.input_tokens_details
    written = wire.completion_tokens_details or wire.output_tokens_details
    reported = (
        ("input_tokens", wire.prompt_tokens if wire.prompt_tokens is not None else wire.input_tokens),
        ("output_tokens", wire.completion_tokens if wire.completion_tokens is not None else wire.output_tokens),
        ("cached_tokens", read.cached_tokens if read else wire.cache_read_input_tokens),
        ("reasoning_tokens", written.reasoning_tokens if written else None),
    )
    for name, count in reported:
        if count is not None:
            setattr(usage, name, count)
    return usage
