import json
from typing import Any

import pytest
from tests.unit.router.support import make_call

from lexora_router.telemetry.otel.prompts import MAX_BODY_BYTES, MAX_CHARS, captured

TEXT = {"type": "text", "content": "hi"}


def of(body: Any, content_type: str = "application/json") -> dict[str, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    found: dict[str, Any] = dict(captured(make_call(body=raw, content_type=content_type)))
    if "gen_ai.input.messages" in found:
        found["gen_ai.input.messages"] = json.loads(found["gen_ai.input.messages"])
    return found


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ({"messages": [{"role": "user", "content": "hi"}]}, [("user", [TEXT])]),
        (
            {"messages": [{"role": "system", "content": "hi"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
            [("system", [TEXT]), ("user", [TEXT])],
        ),
        ({"prompt": "hi"}, [("user", [TEXT])]),
        ({"prompt": ["hi", "hi"]}, [("user", [TEXT]), ("user", [TEXT])]),
        ({"input": "hi", "instructions": "hi"}, [("system", [TEXT]), ("user", [TEXT])]),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]}, [("user", [TEXT])]),
        (
            {"system": [{"type": "text", "text": "hi"}], "messages": [{"role": "user", "content": "hi"}]},
            [("system", [TEXT]), ("user", [TEXT])],
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:..."}}]}]},
            [("user", [{"type": "image_url"}])],
        ),
    ],
)
def test_what_was_asked(body: Any, messages: list[tuple[str, Any]]) -> None:
    assert of(body) == {"gen_ai.input.messages": [{"role": role, "parts": parts} for role, parts in messages]}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b"\xff", {"messages": 4}, {"prompt": [1, 2, 3]}, {"messages": [4]}, b"[" * 10_000],
)
def test_what_has_no_text_has_none(body: Any) -> None:
    assert of(body) == {}


def test_a_form_is_not_read() -> None:
    assert of({"prompt": "hi"}, "multipart/form-data; boundary=x") == {}


def test_the_newest_is_kept() -> None:
    found = of({"messages": [{"role": "user", "content": f"{n:03d}" + "x" * 1000} for n in range(100)]})
    shown = [message["parts"][0]["content"] for message in found["gen_ai.input.messages"]]
    assert shown[-1].startswith("099")
    assert len(shown) < 20
    assert sum(map(len, shown)) <= MAX_CHARS
    assert found["lexora.input.truncated"] is True


def test_one_long_text_is_cut() -> None:
    found = of({"prompt": "x" * (MAX_CHARS + 1)})
    assert found["gen_ai.input.messages"][0]["parts"][0]["content"] == "x" * MAX_CHARS
    assert found["lexora.input.truncated"] is True
    assert "lexora.input.truncated" not in of({"prompt": "x" * MAX_CHARS})


@pytest.mark.parametrize("part", [{"type": "image_url"}, {"type": "text", "text": ""}])
def test_many_parts_with_nothing_in_them_are_bounded(part: dict[str, str]) -> None:
    found = captured(make_call(body=json.dumps({"messages": [{"role": "user", "content": [part] * 10_000}]}).encode()))
    assert len(str(found["gen_ai.input.messages"])) < 2 * MAX_CHARS
    assert found["lexora.input.truncated"] is True


def test_a_huge_body_is_not_read() -> None:
    assert of({"prompt": "x" * MAX_BODY_BYTES}) == {"lexora.input.truncated": True}
