"""The headers of calls in the OpenAPI document."""

from __future__ import annotations

from typing import Any

# name -> schema, description.
_IN: dict[str, tuple[dict[str, Any], str]] = {
    "x-request-id": ({"type": "string", "maxLength": 128}, "Identity of the call in logs and at the engine."),
    "x-request-timeout": ({"type": "number", "exclusiveMinimum": 0}, "Seconds for the whole call; then it is 504."),
    "x-lexora-priority": (
        {"type": "string", "examples": ["high", "normal", "low", "70"]},
        "Order when calls wait: high (100), normal (50), low (0) or a number from 0 to 100.",
    ),
    "x-lexora-fallback": ({"type": "string", "enum": ["never"]}, "No other backend than the model's own may answer."),
    "x-lexora-resume": ({"type": "string", "enum": ["never"]}, "A stream whose engine dies ends with the error."),
    "x-lexora-max-queue-time": (
        {"type": "number", "minimum": 0, "examples": ["0.5"]},
        "Seconds that the call waits for a slot, at most; then it is 429. No more than `queue.timeout`.",
    ),
    "x-lexora-session": ({"type": "string"}, "The conversation or agent, for log, recent calls and spans."),
    "idempotency-key": (
        {"type": "string", "maxLength": 255},
        "Passed on to the engine with every attempt; the router itself remembers no answers.",
    ),
    "x-lexora-labels": (
        {"type": "string", "examples": ["team=search, env=prod"]},
        "Up to 16 key=value pairs for the call's log line, recent calls and spans. A value has no comma.",
    ),
    "x-lexora-explain": ({"type": "string", "enum": ["1"]}, "Explain what would become of the call instead of serving it."),
}
_WHO: dict[str, tuple[dict[str, Any], str]] = {
    "x-request-id": ({"type": "string"}, "Identity of the call."),
    "x-lexora-backend": ({"type": "string"}, "The configured backend that answered or failed."),
    "x-lexora-attempts": ({"type": "integer"}, "Tries on endpoints."),
    "x-lexora-fallback": ({"type": "string"}, "The backends that failed and why: main->spare;reason=UPSTREAM_TIMEOUT."),
    "x-lexora-model": (
        {"type": "string", "examples": ["qwen3-32b;confidence=0.92;task=code;by=rules"]},
        "The model that was chosen for a call that asked for `auto`.",
    ),
    "x-lexora-resumed": ({"type": "string", "enum": ["token_ids", "text"]}, "How a broken stream went on elsewhere."),
}
_EXPLAINED: dict[str, tuple[dict[str, Any], str]] = {
    "x-lexora-explain": ({"type": "string", "enum": ["1"]}, "This is an explanation; nothing was sent to an engine."),
}
_LIMITS: dict[str, tuple[dict[str, Any], str]] = {
    f"x-ratelimit-{name}-{unit}": (schema, f"{words} ({unit}).")
    for unit in ("requests", "tokens")
    for name, schema, words in (
        ("limit", {"type": "integer"}, "What fits into the client's bucket"),
        ("remaining", {"type": "integer"}, "What is left of it"),
        ("reset", {"type": "string", "examples": ["7.66s"]}, "Until it is full again"),
    )
}
_RETRY: dict[str, tuple[dict[str, Any], str]] = {
    "retry-after": ({"type": "string"}, "When to try again: seconds, or as the engine said it."),
}

REQUEST: list[dict[str, Any]] = [
    {"name": name, "in": "header", "required": False, "schema": schema, "description": words}
    for name, (schema, words) in _IN.items()
]
ANSWER: dict[str, Any] = {
    name: {"schema": schema, "description": words} for name, (schema, words) in (_WHO | _EXPLAINED | _LIMITS).items()
}
REFUSAL: dict[str, Any] = ANSWER | {name: {"schema": schema, "description": words} for name, (schema, words) in _RETRY.items()}
