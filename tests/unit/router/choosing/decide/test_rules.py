import pytest

from lexora_router.choosing.decide.rules import compile_rules, match
from lexora_router.config import RuleConfig
from lexora_router.config.patterns import MAX_TEXT

KNOWN = frozenset({"code", "translation"})
RULES = compile_rules(
    [
        RuleConfig(capability="vision", words=("photo",)),
        RuleConfig(capability="code", words=("java", "C++", "関数", "stack trace"), patterns=(r"\bfix\b.{0,20}\bbuild\b",)),
        RuleConfig(capability="translation", words=("translate", "java"), confidence=0.6),
    ],
    KNOWN,
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Learn JAVA now", "code"),
        ("java", "code"),
        ("My C++ program", "code"),
        ("この関数を直して", "code"),
        ("Fix the broken build", "code"),
        ("I love javascript", None),
        ("prefix my building", None),
        ("Translate my photo", "translation"),
        ("nothing of it", None),
        ("", None),
    ],
)
def test_the_first_rule_that_fits_decides(text: str, kind: str | None) -> None:
    found = match(RULES, text)
    assert (found.task_type if found else None) == kind


def test_who_decided_and_why_is_told() -> None:
    found = match(RULES, "please translate")
    assert found is not None
    assert (found.by, found.confidence, found.reasoning) == ("rules", 0.6, "A rule for it found 'translate'.")


def test_only_the_begin_and_the_end_of_a_long_text_are_looked_at() -> None:
    pad = "x " * MAX_TEXT
    assert match(RULES, f"java {pad}") is not None
    assert match(RULES, f"{pad} java") is not None
    assert match(RULES, f"{pad} java {pad}") is None


def test_rules_for_what_no_model_can_do_are_left_out() -> None:
    assert [rule.capability for rule in RULES] == ["code", "translation"]
