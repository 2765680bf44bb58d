import re
import time

import pytest

from lexora_router.config.patterns import MAX_TEXT, checked, compiled

ORDINARY = (
    *(r"\b(write|fix)\b.{0,40}\bscript\b", r"def\s+\w+", "(foo|bar){2}", "(?i)x", "関数|コード", r"\p{Han}+", "^a", "x{3,7}?"),
    *(".*a.*b.*c", "(a+)+", "(a|aa)+", "(?:a?){30}", "((a{1,2})*)*x"),  # a backtracking engine could take for ever
)


@pytest.mark.parametrize("pattern", ORDINARY)
def test_ordinary_patterns_pass(pattern: str) -> None:
    assert checked(pattern) == pattern


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(", "is not a regular expression of RE2: missing ): ("),
        ("((a{100}){100}){10}", "invalid repetition size: {100}"),
        ("x" * 501, "is longer than 500 characters"),
        (r"(a)\1", r"invalid escape sequence: \1"),
        ("(?=a)b", "invalid perl operator: (?="),
    ],
)
def test_what_is_none_is_refused(pattern: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        checked(pattern)


@pytest.mark.parametrize(("pattern", "text"), [("fix", "Please FIX it"), ("é", "É"), ("関数", "この関数を"), (r"\d+", "no 17")])
def test_the_place_is_found_in_any_case(pattern: str, text: str) -> None:
    hit = compiled(pattern).search(text)
    assert hit is not None
    assert hit.group().casefold() in text.casefold()


def test_an_unlucky_text_costs_what_any_text_does() -> None:
    """`re` would need centuries for the first one."""
    unlucky, lucky = ("a" * (MAX_TEXT - 1) + "!", "b" * MAX_TEXT)
    pattern = compiled("((a+)+)+$")
    taken = []
    for text in (lucky, unlucky):
        began = time.process_time()
        for _ in range(100):
            pattern.search(text)
        taken.append(time.process_time() - began)
    assert taken[1] < 1000 * taken[0]
