import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_contract.priority import CLASS, HIGH, LOW, NORMAL, parse_priority

priorities = st.integers(LOW, HIGH)


@pytest.mark.parametrize(
    ("text", "priority"),
    [
        ("high", 100),
        ("normal", 50),
        ("low", 0),
        (" High ", 100),
        ("NORMAL", 50),
        ("0", 0),
        ("70", 70),
        ("100", 100),
        ("007", 7),
    ],
)
def test_names_and_numbers_are_read(text: str, priority: int) -> None:
    assert parse_priority(text) == priority


@pytest.mark.parametrize("text", ["", "urgent", "101", "-1", "+7", "1.5", "1_0", "٣", "1e1", "0000", "high,low"])
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="priority must be high, normal, low or a whole number from 0 to 100"):
        parse_priority(text)


def test_the_message_is_bounded() -> None:
    with pytest.raises(ValueError, match="priority must be") as refused:
        parse_priority("x" * 100_000)
    assert len(str(refused.value)) < 150


@given(st.text(max_size=8))
def test_whatever_is_sent_gives_a_priority_or_a_refusal(text: str) -> None:
    try:
        assert LOW <= parse_priority(text) <= HIGH
    except ValueError:
        assert text.strip().lower() not in {"high", "normal", "low"}


@given(priorities)
def test_numbers_survive_being_written(priority: int) -> None:
    assert parse_priority(str(priority)) == priority


def test_names_are_one_class_apart() -> None:
    assert NORMAL - LOW == HIGH - NORMAL == CLASS
