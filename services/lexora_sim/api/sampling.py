"""Sampling parameters: read, checked as vLLM checks them, and held in one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lexora_sim.api.errors import ApiError, bad_request
from lexora_sim.api.fields import Fields, string_list
from lexora_sim.settings import SimSettings

_MAX_LOGPROBS = 20
_MAX_N = 128
_CHARACTERS_PER_TOKEN = 37  # more than that cannot fit, whatever the text


@dataclass(slots=True, kw_only=True)
class Sampling:
    """How to generate; `max_tokens` None means the endpoint's default."""

    max_tokens: int | None = None
    min_tokens: int = 0
    n: int = 1
    seed: int = 0
    stops: list[str] = field(default_factory=list)
    include_stop: bool = False
    stop_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    priority: int = 0
    salt: str = ""  # of the prefix cache
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    return_token_ids: bool = False
    prompt_logprobs: int | None = None


def read_sampling(fields: Fields, settings: SimSettings, *, chat: bool) -> Sampling:
    """Read and check the fields both generating endpoints share; raises ApiError."""
    max_tokens = fields.integer("max_tokens")
    if chat:
        newer = fields.integer("max_completion_tokens")
        max_tokens = newer if newer is not None else max_tokens
    sampling = Sampling(
        max_tokens=max_tokens,
        min_tokens=fields.integer("min_tokens", 0) or 0,
        n=_or(fields.integer("n"), 1),
        seed=_or(fields.integer("seed"), 0),
        include_stop=fields.boolean("include_stop_str_in_output"),
        ignore_eos=fields.boolean("ignore_eos"),
        priority=fields.integer("priority", 0) or 0,
        salt=fields.string("cache_salt") or "",
        stream=fields.boolean("stream"),
        return_token_ids=fields.boolean("return_token_ids"),
        prompt_logprobs=fields.integer("prompt_logprobs"),
    )
    temperature, top_p = fields.number("temperature"), fields.number("top_p")
    presence, frequency = fields.number("presence_penalty"), fields.number("frequency_penalty")
    options = fields.mapping("stream_options")
    stop_ids = fields.items("stop_token_ids")
    fields.check()
    sampling.stops = [stop for stop in string_list(fields, "stop") if stop]
    sampling.stop_ids = frozenset(token for token in stop_ids or [] if isinstance(token, int))
    _read_stream_options(sampling, options)
    _check_ranges(temperature, top_p, presence, frequency)
    _check_prompt_logprobs(sampling)
    _check_counts(sampling, settings, may_be_zero=not chat and fields.boolean("echo"))
    return sampling


def check_priority(priority: int, settings: SimSettings) -> None:
    """Refuse a priority when the scheduler has none; raises ApiError."""
    if priority and not settings.priority_scheduling:
        raise bad_request(f"Got priority {priority} but Priority scheduling is not enabled.")


def check_characters(characters: int, settings: SimSettings) -> None:
    """Refuse a text that cannot fit before any work is spent on it; raises ApiError."""
    limit = settings.max_model_len
    most = limit * _CHARACTERS_PER_TOKEN
    if characters > most:
        raise _too_long(
            limit,
            f"your prompt contains {characters} characters (more than {most} characters, which is the upper bound "
            f"for {limit} input tokens). Please reduce the length of the input prompt.",
            ("input_text", characters),
        )


def check_length(prompt_tokens: int, settings: SimSettings) -> None:
    """Refuse a prompt that leaves no room for an answer; raises ApiError."""
    limit = settings.max_model_len
    if prompt_tokens >= limit:
        raise _too_long(
            limit,
            f"your prompt contains at least {limit + 1} input tokens, which exceeds this limit even without any "
            "output tokens. Please reduce the length of the input prompt.",
            ("input_tokens", limit + 1),
        )


def room(prompt_tokens: int, wanted: int, settings: SimSettings) -> int:
    """Return `wanted` output tokens if they fit behind the prompt; raises ApiError."""
    limit = settings.max_model_len
    if prompt_tokens + wanted > limit:
        raise _too_long(
            limit,
            f"you requested {wanted} output tokens and your prompt contains at least {limit - wanted + 1} input "
            f"tokens, for a total of at least {limit + 1} tokens. Please reduce the length of the input prompt or "
            "the number of requested output tokens.",
            ("input_tokens", limit - wanted + 1),
        )
    return wanted


def check_logprobs(count: int | None) -> None:
    """Refuse more alternatives than the server gives; raises ApiError."""
    if count is not None and count > _MAX_LOGPROBS:
        text = f"Requested sample logprobs of {count}, which is greater than max allowed: {_MAX_LOGPROBS}"
        raise bad_request(text, "logprobs", count)
    if count is not None and count < 0:
        raise bad_request("`logprobs` must be a positive value.", "logprobs", count)


def _read_stream_options(sampling: Sampling, options: dict[str, Any] | None) -> None:
    if options is None:
        return
    if not sampling.stream:
        raise bad_request("Stream options can only be defined when `stream=True`.", "stream_options")
    sampling.include_usage = bool(options.get("include_usage"))
    sampling.continuous_usage = sampling.include_usage and bool(options.get("continuous_usage_stats"))


def _check_ranges(temperature: float | None, top_p: float | None, presence: float | None, frequency: float | None) -> None:
    if temperature is not None and temperature < 0:
        raise bad_request(f"temperature must be non-negative, got {temperature}.", "temperature", temperature)
    if top_p is not None and not 0 < top_p <= 1:
        raise bad_request(f"top_p must be in (0, 1], got {top_p}.", "top_p", top_p)
    for name, value in (("presence_penalty", presence), ("frequency_penalty", frequency)):
        if value is not None and not -2 <= value <= 2:
            raise bad_request(f"{name} must be in [-2, 2], got {value}.")


def _check_prompt_logprobs(sampling: Sampling) -> None:
    count = sampling.prompt_logprobs
    if count is None:
        return
    if sampling.stream and count > 0:
        raise bad_request("`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs")
    if count < 0:
        raise bad_request("`prompt_logprobs` must be a positive value.", "prompt_logprobs", count)
    if count > _MAX_LOGPROBS:
        text = f"Requested prompt logprobs of {count}, which is greater than max allowed: {_MAX_LOGPROBS}"
        raise bad_request(text, "prompt_logprobs", count)


def _check_counts(sampling: Sampling, settings: SimSettings, *, may_be_zero: bool) -> None:
    wanted, limit = sampling.max_tokens, settings.max_model_len
    if sampling.n < 1:
        raise bad_request(f"n must be at least 1, got {sampling.n}.")
    if sampling.n > _MAX_N:
        raise bad_request(f"n must be at most {_MAX_N}, got {sampling.n}.")
    if wanted is not None and wanted < (0 if may_be_zero else 1):
        raise bad_request(f"max_tokens must be at least 1, got {wanted}.", "max_tokens", wanted)
    if wanted is not None and wanted > limit:
        text = f"max_tokens={wanted} cannot be greater than max_model_len={limit}. Please request fewer output tokens."
        raise bad_request(text, "max_tokens", wanted)
    if sampling.min_tokens < 0:
        raise bad_request(f"min_tokens must be greater than or equal to 0, got {sampling.min_tokens}.")
    if wanted is not None and sampling.min_tokens > wanted:
        text = f"min_tokens must be less than or equal to max_tokens={wanted}, got {sampling.min_tokens}."
        raise bad_request(text)
    if not -(2**63) <= sampling.seed < 2**63:
        raise bad_request(f"seed must fit in 64 bits, got {sampling.seed}.", "seed", sampling.seed)
    check_priority(sampling.priority, settings)


def _too_long(limit: int, rest: str, where: tuple[str, int]) -> ApiError:
    return bad_request(f"This model's maximum context length is {limit} tokens. However, {rest}", *where)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
