"""What engines say in their error bodies, as one readable line."""

import pytest

from lexora_router.payload.error_bodies import MAX_SHOWN, readable

SHAPES = {
    "OpenAI, vLLM": (
        b'{"error":{"message":"max_tokens is too large","type":"BadRequestError","code":400}}',
        "max_tokens is too large",
    ),
    "Anthropic": (b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', "Overloaded"),
    "a text": (b'{"error":"model not loaded"}', "model not loaded"),
    "older vLLM": (b'{"object":"error","message":"no such model","code":404}', "no such model"),
    "FastAPI": (b'{"detail":"Not Found"}', "Not Found"),
    "lines": (b'{"error":{"message":"2 errors:\\n  one\\n  two"}}', "2 errors: one two"),
    "no text in it": (b'{"error":{"code":500}}', '{"error":{"code":500}}'),
    "another shape": (b'{"detail":[{"msg":"x"}]}', '{"detail":[{"msg":"x"}]}'),
    "no JSON": (b"upstream  connect\nerror", "upstream connect error"),
    "not UTF-8": (b"\xff{", "\ufffd{"),
    "nothing": (b"", ""),
    "long": (b'{"error":{"message":"%b"}}' % (b"x" * 1000), "x" * (MAX_SHOWN - 3) + "..."),
}


@pytest.mark.parametrize("name", SHAPES)
def test_readable(name: str) -> None:
    body, text = SHAPES[name]
    assert readable(body) == text


def test_deep_nesting() -> None:
    assert readable(b"[" * 100_000).startswith("[[[")
