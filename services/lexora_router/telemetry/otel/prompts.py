"""What a call's span may say of its input, when the operator has asked for that. Bounded, and read from JSON bodies only."""

from collections.abc import Iterator
from typing import Any

import msgspec

from lexora_contract.key_text import without_secrets
from lexora_router.call import Call
from lexora_router.telemetry.otel.conventions import Value

MAX_CHARS = 16 * 1024
# What a part costs besides its text.
PART_CHARS = 64
# A longer body would take too long to read.
MAX_BODY_BYTES = 2**20


class _Body(msgspec.Struct):
    messages: list[Any] | None = None
    prompt: Any = None
    input: Any = None
    instructions: Any = None
    system: Any = None


_decode = msgspec.json.Decoder(_Body).decode


def captured(call: Call) -> dict[str, Value]:
    """gen_ai.input.messages: the newest messages of at most MAX_CHARS; lexora.input.truncated when that is not all."""
    if not call.content_type.startswith("application/json"):
        return {}
    try:
        body = _decode(call.body) if len(call.body) <= MAX_BODY_BYTES else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if body is None:
        return {"lexora.input.truncated": True}
    left, kept, whole = MAX_CHARS, list[dict[str, Any]](), True
    for role, parts in reversed(list(_messages(body))):
        shown = []
        for part in parts:
            if left <= 0:
                break
            text = part.get("content", "")
            shown.append(part | {"content": text[:left]} if text else part)
            left -= len(text) + PART_CHARS
        whole = whole and left >= -PART_CHARS and len(shown) == len(parts)
        if not shown:
            break
        kept.append({"role": role, "parts": shown})
    found: dict[str, Value] = {}
    if kept:
        found["gen_ai.input.messages"] = without_secrets(msgspec.json.encode(kept[::-1]).decode())
    if not whole:
        found["lexora.input.truncated"] = True
    return found


def _messages(body: _Body) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Role and parts of each message, whatever endpoint they are for."""
    for system in (body.system, body.instructions):
        if system is not None:
            yield "system", list(_parts(system))
    for message in body.messages or ():
        if isinstance(message, dict):
            yield str(message.get("role", ""))[:64], list(_parts(message.get("content")))
    for given in (body.prompt, body.input):
        for item in given if isinstance(given, list) else [given]:
            if isinstance(item, dict):
                yield str(item.get("role", "user"))[:64], list(_parts(item.get("content")))
            elif isinstance(item, str):
                yield "user", list(_parts(item))


def _parts(content: Any) -> Iterator[dict[str, str]]:
    """Texts as they are; of anything else only what it is."""
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            yield {"type": "text", "content": part}
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            yield {"type": "text", "content": part["text"]}
        elif isinstance(part, dict):
            yield {"type": str(part.get("type", ""))[:64]}
