import json
from typing import Any

import pytest

from lexora_contract.operations import CHAT, COMPLETIONS
from lexora_router.resume.eligibility import ResumePlan, ResumeSource, plan_resume

BOTH = ResumeSource(ids=True, text=True, endpoints=lambda: 2)


def wanted(path: str = CHAT, source: ResumeSource = BOTH, **fields: Any) -> ResumePlan | None:
    base: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]} if path == CHAT else {"prompt": "hi"}
    return plan_resume(path, json.dumps({"model": "m", "stream": True, **base, **fields}).encode(), source)


def sure(path: str = CHAT, source: ResumeSource = BOTH, **fields: Any) -> ResumePlan:
    found = wanted(path, source, **fields)
    assert found is not None
    return found


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tools": None, "tool_choice": None, "n": 1, "logprobs": None, "echo": False, "suffix": None, "best_of": 1},
        {"tools": [], "response_format": {"type": "text"}, "guided_json": None, "structured_outputs": None},
        {"response_format": None, "stop": None, "temperature": 1, "include_stop_str_in_output": True},
    ],
    ids=str,
)
def test_plain_text_can_be_continued(path: str, fields: dict[str, Any]) -> None:
    found = sure(path, **fields)
    assert (found.ids, found.text, found.hold, found.asked_ids) == (True, True, 0, False)


@pytest.mark.parametrize(
    ("stop", "hold"), [("abc", 2), (["a", "日本語の", "bc"], 3), ([], 0), ("", 0), (["a"], 0), ("x" * 1025, 1024)]
)
def test_stop_strings_are_held_back(stop: Any, hold: int) -> None:
    assert sure(stop=stop).hold == hold


def test_stop_strings_that_cannot_be_followed() -> None:
    assert wanted(stop="x" * 1026) is None
    assert wanted(stop=["ab"], include_stop_str_in_output=True) is None


@pytest.mark.parametrize(
    ("path", "fields", "limit"),
    [
        (CHAT, {}, None),
        (CHAT, {"max_tokens": 5}, 5),
        (CHAT, {"max_tokens": 5, "max_completion_tokens": 9}, 9),
        (CHAT, {"max_tokens": 5, "max_completion_tokens": None}, 5),
        (COMPLETIONS, {}, 16),
        (COMPLETIONS, {"max_tokens": None}, None),
        (COMPLETIONS, {"max_tokens": 5.0, "max_completion_tokens": 9}, 5),
    ],
)
def test_the_limit(path: str, fields: dict[str, Any], limit: int | None) -> None:
    assert sure(path, **fields).max_tokens == limit


def test_an_engine_without_ids_may_have_a_default_of_its_own() -> None:
    assert sure(COMPLETIONS, ResumeSource(ids=False, text=True, endpoints=lambda: 2)).max_tokens is None


def test_greedy() -> None:
    assert [sure(temperature=value).greedy for value in (0, 0.0, 0.4, None)] == [True, True, False, False]
    assert not sure().greedy


def test_what_says_all_by_ids_and_what_by_text() -> None:
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    spoken = [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": None}]
    word = [{"role": "user", "content": 'a "type" of'}]
    assert [sure(messages=messages).ids for messages in (image, spoken, word)] == [False, True, True]
    assert sure(messages=image).text
    assert not sure(continue_final_message=True).text
    assert not sure(COMPLETIONS, prompt=[1, 2]).text
    assert wanted(COMPLETIONS, prompt=["a"]) is None
    assert wanted(COMPLETIONS, prompt=[[1]]) is None
    assert wanted(COMPLETIONS, ResumeSource(ids=False, text=True, endpoints=lambda: 2), prompt=[1, 2]) is None


@pytest.mark.parametrize("body", [b"", b"[]", b'{"stop":', b'{"messages":[],"temperature":"warm","stop":3}', b"\xff"])
def test_what_cannot_be_read_is_left_alone(body: bytes) -> None:
    assert plan_resume(CHAT, body, BOTH) is None


def test_other_paths() -> None:
    assert wanted("/v1/responses", prompt="a") is None


def test_a_client_that_asks_for_ids() -> None:
    assert [sure(return_token_ids=value).asked_ids for value in (True, False, None)] == [True, False, False]
