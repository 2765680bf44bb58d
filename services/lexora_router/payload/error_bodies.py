"""The readable part of an engine's error body."""

import msgspec

MAX_SHOWN = 300


class _Error(msgspec.Struct):
    message: str | None = None


class _Body(msgspec.Struct):
    """The shapes in use: OpenAI and Anthropic (an object), llama.cpp's older one (a text), vLLM's older one, FastAPI."""

    error: _Error | str | None = None
    message: str | None = None
    detail: str | None = None


_decode = msgspec.json.Decoder(_Body).decode


def readable(body: bytes) -> str:
    """What an error body says to a person, at most 300 characters in one line; the body itself where it has no such text."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = None
    else:
        nested = found.error.message if isinstance(found.error, _Error) else found.error
        text = nested or found.message or found.detail
    shown = " ".join((text or body[: 4 * MAX_SHOWN].decode("utf-8", "replace")).split())
    return shown if len(shown) <= MAX_SHOWN else f"{shown[: MAX_SHOWN - 3]}..."
