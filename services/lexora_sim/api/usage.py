"""Token counts, in the shapes vLLM gives them."""

from __future__ import annotations

from typing import Any

from lexora_sim.api.generation import Choice


def prompt_count(choices: list[Choice]) -> int:
    """Return the prompt tokens of a request; choices of one prompt share it."""
    return sum(len(prompt) for prompt in {id(choice.prompt): choice.prompt for choice in choices}.values())


def short_usage(choices: list[Choice]) -> dict[str, Any]:
    """Return the usage of a stream's last chunk."""
    before, after = prompt_count(choices), sum(len(choice.ids) for choice in choices)
    return {"prompt_tokens": before, "total_tokens": before + after, "completion_tokens": after}


def full_usage(choices: list[Choice], *, details: bool) -> dict[str, Any]:
    """Return the usage of a unary answer; `details` reports the cached tokens."""
    cached = sum(choice.sequence.cached for choice in choices if choice.sequence is not None)
    known = {"audio_tokens": None, "cached_tokens": cached} if details else None
    return {**short_usage(choices), "prompt_tokens_details": known, "completion_tokens_details": None}


def running_usage(choice: Choice, count: int | None = None) -> dict[str, Any]:
    """Return the usage inside a stream with `continuous_usage_stats`, after all tokens so far or the first `count`."""
    before, after = len(choice.prompt), len(choice.ids) if count is None else count
    return {
        "prompt_tokens": before,
        "total_tokens": before + after,
        "completion_tokens": after,
        "completion_tokens_details": None,
    }
