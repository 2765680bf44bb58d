"""A JSON schema that a prompt shows: how clients without structured outputs ask for JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

MAX_TRIES = 16
_decoder = json.JSONDecoder()


def schema_in(messages: Any) -> dict[str, Any] | None:
    """The first schema of an object in the texts of a conversation; None where there is none."""
    for text in _texts(messages):
        at = text.find("{")
        for _ in range(MAX_TRIES):
            if at < 0:
                break
            try:
                found, end = _decoder.raw_decode(text, at)
            except (ValueError, RecursionError):
                end = at + 1
            else:
                if isinstance(found.get("properties"), dict):
                    return dict(found)
            at = text.find("{", end)
    return None


def _texts(messages: Any) -> Iterator[str]:
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            yield content
        elif isinstance(content, list):
            yield from (part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
