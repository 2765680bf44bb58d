import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.choosing.decide.text import MAX_TASK, digest, excerpt, normalised, task_of


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "auto", **fields}).encode()


@pytest.mark.parametrize(
    ("given", "same"),
    [("  a \n\t b　c ", "a b c"), ("Ｐｙｔｈｏｎ ㈱", "Python (株)"), ("ﾊﾞｸﾞ", "バグ"), ("US", "US"), (" \n ", "")],
)
def test_what_means_the_same_is_the_same(given: str, same: str) -> None:
    assert normalised(given) == same
    assert digest(normalised(given)) == digest(same)


def test_case_makes_a_difference() -> None:
    assert digest(normalised("us")) != digest(normalised("US"))


def test_of_a_long_text_beginning_and_end_are_kept() -> None:
    long = normalised("begin " + "x" * 1_000_000 + " end")
    assert len(long) == MAX_TASK
    assert long.startswith("begin xxx")
    assert long.endswith("xxx end")
    assert " [...] " in long


@given(st.text(), st.integers(min_value=8, max_value=40))
def test_an_excerpt_is_never_longer_than_asked(text: str, limit: int) -> None:
    shown = excerpt(text, limit)
    assert len(shown) <= limit
    assert len(text) > limit or shown == text


@given(st.text(max_size=200))
def test_normalised_text_stays_as_it_is(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


PARTS = [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {"url": "data:"}}, {"type": "text", "text": "two"}]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"messages": [{"role": "user", "content": "first"}, {"role": "user", "content": "last"}]}, "last"),
        ({"messages": [{"role": "user", "content": "asked"}, {"role": "assistant", "content": "said"}]}, "asked"),
        ({"messages": [{"role": "system", "content": "be good"}]}, ""),
        ({"messages": [{"role": "user", "content": PARTS}]}, "one\ntwo"),
        ({"messages": [{"role": "user", "content": "text"}, {"role": "user", "content": PARTS[1:2]}]}, "text"),
        ({"messages": [{"role": "user", "content": None}, {"role": "user"}, 3, {"content": [1, None, "bare"]}]}, "bare"),
        ({"messages": []}, ""),
        ({"prompt": "complete me"}, "complete me"),
        ({"prompt": ["one", "two"]}, "one\ntwo"),
        ({"prompt": [1, 2, 3]}, ""),
        ({"prompt": None}, ""),
        ({"input": "respond"}, "respond"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "respond"}]}]}, "respond"),
        (
            {"input": [{"type": "message", "role": "user", "content": "a"}, {"type": "function_call_output", "output": "b"}]},
            "a",
        ),
        ({}, ""),
    ],
)
def test_the_task_is_what_the_user_said_last(fields: dict[str, Any], text: str) -> None:
    assert task_of(body(**fields)) == text


@pytest.mark.parametrize("given", [b"", b"[]", b'{"messages": 3}', b'{"messages": "x"}'])
def test_what_is_no_call_has_no_task(given: bytes) -> None:
    assert task_of(given) == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["role", "content", "text", "type"]), inner),
)


@given(st.fixed_dictionaries({}, optional={"messages": JSON, "prompt": JSON, "input": JSON}))
def test_any_body_has_a_task_or_none(fields: dict[str, Any]) -> None:
    assert isinstance(task_of(body(**fields)), str)
