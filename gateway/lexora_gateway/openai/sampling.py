"""Sampling parameters of an OpenAI request as SamplingParams."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lexora.v1.sampling_pb2 import SamplingParams
from lexora_gateway.json_body import is_integer

if TYPE_CHECKING:
    from lexora_gateway.json_body import JsonFields

_INT32 = ("max_tokens", "top_k", "n", "min_tokens")
_DOUBLE = (
    "temperature",
    "top_p",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
)


def take_sampling(fields: JsonFields, max_tokens: int, temperature: float) -> SamplingParams:
    """Take every sampling field out of `fields`; absent and null leave the two defaults in place.

    Raises Refused (400) for a wrong type.
    """
    sampling = SamplingParams(max_tokens=max_tokens, temperature=temperature)
    for name in _INT32:
        _set(sampling, name, fields.integer(name))
    for name in _DOUBLE:
        _set(sampling, name, _finite(fields, name))
    _set(sampling, "seed", fields.integer("seed", 64))
    sampling.stop.extend(_stop(fields))
    sampling.stop_token_ids.extend(_token_ids(fields))
    for token, bias in _logit_bias(fields).items():
        sampling.logit_bias[token] = bias
    return sampling


def _set(sampling: SamplingParams, name: str, value: Any) -> None:
    if value is not None:
        setattr(sampling, name, value)


def _finite(fields: JsonFields, name: str) -> float | None:
    value = fields.real(name)
    try:
        number = None if value is None else float(value)
    except OverflowError:
        number = math.inf
    if number is not None and not math.isfinite(number):
        fields.refuse(name, "a number")
    return number


def _stop(fields: JsonFields) -> list[str]:
    value = fields.take("stop")
    stops = [value] if isinstance(value, str) else (value if value is not None else [])
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        fields.refuse("stop", "a string or a list of strings")
    return stops


def _token_ids(fields: JsonFields) -> list[int]:
    ids = fields.items("stop_token_ids", "a list of token ids")
    if not all(is_integer(item, 32) for item in ids):
        fields.refuse("stop_token_ids", "a list of token ids")
    return ids


def _logit_bias(fields: JsonFields) -> dict[int, float]:
    value = fields.take("logit_bias")
    if value is None:
        return {}
    needed = "an object of numbers by token id"
    if not isinstance(value, dict):
        fields.refuse("logit_bias", needed)
    try:
        biases = {int(token): float(bias) for token, bias in value.items()}
    except (ValueError, TypeError, OverflowError):
        fields.refuse("logit_bias", needed)
    if not all(is_integer(token, 32) for token in biases):
        fields.refuse("logit_bias", needed)
    return biases
