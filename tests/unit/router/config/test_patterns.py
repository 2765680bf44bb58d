import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.config.patterns import FLAGS, MAX_TEXT, checked

ORDINARY = (
    *(r"\b(write|fix)\b.{0,40}\bscript\b", r"def\s+\w+", "(foo|bar){2}", "(foo|bar)+", "a++b++c++d+e+", "(?i)x", "関数|コード"),
    *("x{3,7}?", "(ab)+c", "(?:a|b)*x", "(?=x).*", "(?<!a)b", "^a", "(?>a+)b"),
)
NESTED = ("(a+)+", "(a|aa)+", "(?:ab|.)*x", "(foo|FOO)+", "(?:a?){30}", "((a{1,2})*)*x", "(?>a+b)+")
LONG = (".*a.*b.*c", r"\s*\w*\s*x", "(.*)(.*)(.*)!")


@pytest.mark.parametrize("pattern", ORDINARY)
def test_ordinary_patterns_pass(pattern: str) -> None:
    assert checked(pattern) == pattern


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(", "is not a regular expression: missing ), unterminated subpattern (character 1)"),
        ("a{99999999999999999999}", "too large or too deep"),
        ("x" * 501, "is longer than 500 characters"),
        (r"(a)\1", "refers back"),
        *((pattern, "has a repeat or an option in it") for pattern in NESTED),
        *((pattern, "write {0,40}") for pattern in LONG),
    ],
)
def test_what_is_none_or_might_take_too_long_is_refused(pattern: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        checked(pattern)


ATOMS = st.sampled_from(["a", "b", ".", r"\w", r"\s", "[ab]", "ab", "^", "$", r"\b"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{0,9}", "*?", "++"])).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
    ),
    max_leaves=6,
)


@given(PATTERNS, st.sampled_from(["a", "ab", " a", "b "]))
def test_what_passes_ends(pattern: str, piece: str) -> None:
    """A pattern that slips through and takes forever would hang this test."""
    try:
        checked(pattern)
    except ValueError:
        return
    re.search(f"{pattern}!", (piece * MAX_TEXT)[: MAX_TEXT // 4], FLAGS)
