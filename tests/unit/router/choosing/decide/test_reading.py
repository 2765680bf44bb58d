import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.choosing.decide.label import Label
from lexora_router.choosing.decide.reading import MAX_REASONING, answer_text, clean, read

KINDS = ["code", "reasoning", "翻訳", "general"]
GOOD = '{"task_type": "code", "confidence": 0.8, "reasoning": "It asks for {code}."}'


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"```json\n{GOOD}\n```",
        f"Sure! Here is the answer:\n\n{GOOD}\n\nAnything else? {{}}",
        f'<think>Maybe {{"task_type": "reasoning"}}? No.</think>{GOOD}',
        GOOD.replace('"code"', '" CODE "'),
        GOOD.replace("0.8", '"0.8"'),
        GOOD.replace("0.8", "80"),
        f'{{"answer": {GOOD}}}'.replace('{"answer": ', "").removesuffix("}"),
    ],
)
def test_wrapped_up_answers_are_read(text: str) -> None:
    assert read(text, KINDS) == Label("code", 0.8, "It asks for {code}.", "llm")


@pytest.mark.parametrize(
    ("text", "confidence", "reasoning"),
    [
        ('{"task_type": "code", "confidence": 0.8, "reasoning": "It asks', 0.8, "It asks"),
        ('{"task_type": "code", "confidence": 0.8, "reason', 0.8, ""),
        ('{"task_type": "code", "confid', 0.5, ""),
        ('{"task_type": "code"', 0.5, ""),
        ('```json\n{"confidence": 0.8, "task_type": "code",', 0.8, ""),
        ('{"task_type": "code", "confidence": null, "reasoning": null}', 0.5, ""),
        ('{"task_type": "code", "confidence": true}', 0.5, ""),
        ('{"task_type": "code", "confidence": -3}', 0.0, ""),
        ('{"task_type": "code", "confidence": 1e400}', 0.5, ""),
    ],
)
def test_answers_that_lack_something_are_read_as_far_as_they_go(text: str, confidence: float, reasoning: str) -> None:
    found = read(text, KINDS)
    assert found is not None
    assert (found.task_type, found.reasoning) == ("code", reasoning)
    assert found.confidence == pytest.approx(confidence) or "1e400" in text


@pytest.mark.parametrize(
    "text",
    [
        *("", "code", "{}", "[[[" * 5000, "{" * 9000),
        *('{"task_type": "unknown", "confidence": 1}', '{"task_type": "qwen3-32b"}', '{"task_type": 3}'),
    ],
)
def test_what_names_no_known_kind_is_an_abstention(text: str) -> None:
    assert read(text, KINDS) is None


def test_a_model_s_words_are_one_bounded_line() -> None:
    assert clean("a\x00b\x1b[31m\nc\u202ed") == "a b [31m c d"
    assert len(clean("x" * 10_000)) == MAX_REASONING
    assert clean("\x00" * 5000) == ""


@given(st.text(), st.text(), st.sampled_from(KINDS), st.floats(0, 1), st.text(max_size=50))
def test_an_answer_is_found_whatever_stands_around_it(before: str, after: str, kind: str, confidence: float, why: str) -> None:
    before, after = before.replace("{", "").replace("}", ""), after.replace("{", "").replace("}", "")
    found = read(f"{before}{json.dumps({'task_type': kind, 'confidence': confidence, 'reasoning': why})}{after}", KINDS)
    if "</think>" in after or "</think>" in why:
        return  # what comes before the end of a thought is no answer
    assert found is not None
    assert (found.task_type, found.confidence) == (kind, pytest.approx(confidence))


ANYTHING = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists) | st.sampled_from(KINDS)


OBJECTS = st.dictionaries(st.sampled_from(["task_type", "confidence", "reasoning"]), ANYTHING)


@given(st.text() | OBJECTS.map(json.dumps), st.integers(0, 200))
def test_no_answer_leads_outside_the_kinds(text: str, cut: int) -> None:
    for piece in (text, text[:cut], f"```\n{text}", text * 2):
        found = read(piece, KINDS)
        if found is not None:
            assert found.task_type in KINDS
            assert 0 <= found.confidence <= 1
            assert len(found.reasoning) <= MAX_REASONING
            assert found.reasoning.isprintable()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"choices": [{"message": {"content": "yes"}}]}, "yes"),
        ({"choices": [{"message": {"content": None}}]}, ""),
        ({"choices": []}, ""),
        ({}, ""),
        ([], ""),
    ],
)
def test_the_text_of_a_chat(answer: Any, text: str) -> None:
    assert answer_text(json.dumps(answer).encode()) == text
