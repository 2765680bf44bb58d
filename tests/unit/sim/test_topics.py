from __future__ import annotations

import json
from typing import Any

import pytest

from lexora_sim import Simulator
from lexora_sim.text.likeness import vector
from lexora_sim.text.topics import sorted_task
from tests.unit.sim.helpers import post

KINDS = ["code", "translation", "reasoning", "unknown"]


def schema(*kinds: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"task_type": {"type": "string", "enum": list(kinds)}}}


def sort(text: str, *kinds: str) -> Any:
    return sorted_task(schema(*(kinds or KINDS)), [{"role": "user", "content": text}])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Refactor this Python function", "code"),
        ("このバグを直して", "code"),
        ("英語に翻訳して", "translation"),
        ("Prove it step by step", "reasoning"),
        ("zzz", "unknown"),
    ],
)
def test_words_decide(text: str, kind: str) -> None:
    assert sort(text)["task_type"] == kind
    assert 0 <= sort(text)["confidence"] <= 0.95


def test_only_what_is_asked_for_is_said() -> None:
    assert sort("a python bug", "translation", "other")["task_type"] == "translation"
    assert sort("a python bug", "Code")["task_type"] == "Code"


@pytest.mark.parametrize("given", [None, {}, {"properties": {"task_type": {"type": "string"}}}, {"properties": []}, schema()])
def test_other_schemas_are_not_its_business(given: Any) -> None:
    assert sorted_task(given, [{"content": "python"}]) is None


def test_any_messages_will_do() -> None:
    for messages in (None, [], [3], [{"content": None}], [{"content": [{"type": "text", "text": "python"}]}]):
        assert sorted_task(schema("code", "unknown"), messages)["task_type"] == "unknown"  # type: ignore[index]


async def test_the_answer_to_a_chat(sim: Simulator) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "task", "schema": schema(*KINDS)}}
    body = {"model": "tiny", "messages": [{"role": "user", "content": "この関数を直して"}], "response_format": form}
    content = (await post(sim, "/v1/chat/completions", body)).json()["choices"][0]["message"]["content"]
    assert json.loads(content)["task_type"] == "code"


# -- embeddings


def near(one: str, two: str) -> float:
    return sum(a * b for a, b in zip(vector(one, 512), vector(two, 512), strict=True))


def test_texts_that_share_words_are_near_each_other() -> None:
    assert near("Translate this letter", "Translate this email") > 0.4
    assert near("この文章を訳して", "この文章を要約して") > 0.3
    assert abs(near("Translate this letter", "Zwölf Boxkämpfer jagen")) < 0.2
    assert near("ＡＢＣ def", "abc  DEF") == pytest.approx(1.0)


@pytest.mark.parametrize("text", ["", " ", "a", "x" * 1000])
def test_every_text_has_a_vector_of_length_one(text: str) -> None:
    for size in (1, 64, 513):
        found = vector(text, size)
        assert len(found) == size
        assert sum(value * value for value in found) == pytest.approx(1.0)
