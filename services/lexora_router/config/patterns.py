"""Regular expressions of an operator that run on texts of strangers: what could take too long is refused when it is loaded.

Python's engine backtracks. So rules get a short text (MAX_TEXT characters), and a pattern may have only so many ways to match
one place of it: two repeats without an end are the most, and no repeat of something that may itself be cut in several ways.
"""

import importlib
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

MAX_TEXT = 600  # characters that a rule looks at
MAX_PATTERN = 500  # characters of one pattern
MAX_WAYS = (MAX_TEXT + 1) ** 2
FLAGS = re.IGNORECASE

_parser: Any = importlib.import_module("re._parser")  # the only parser that surely agrees with the engine


class _Unbounded(Exception):
    """A part of the pattern whose cost has no useful bound; the message says which."""


def checked(pattern: str) -> str:
    """Return the pattern; raises ValueError when it is no regular expression, or might take too long."""
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"is longer than {MAX_PATTERN} characters")
    try:
        re.compile(pattern, FLAGS)
        ways = _ways(_parser.parse(pattern, FLAGS))
    except re.error as error:
        where = "" if error.pos is None else f" (character {error.pos + 1})"
        raise ValueError(f"is not a regular expression: {error.msg}{where}") from None
    except (RecursionError, OverflowError):
        raise ValueError("is not a regular expression that can be used: too large or too deep") from None
    except _Unbounded as found:
        raise ValueError(f"might take too long on an unlucky text: {found}") from None
    if ways > MAX_WAYS:
        raise ValueError(
            "might take too long on an unlucky text: write {0,40} instead of * and +, which may occur twice at most"
        )
    return pattern


def _ways(parsed: Iterable[tuple[Any, Any]]) -> int:
    """In how many ways a sequence may match at one place, at most."""
    ways = 1
    for kind, argument in parsed:
        ways *= _ways_of(str(kind), argument)
    return ways


def _ways_of(kind: str, argument: Any) -> int:
    if kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        return _repeat(*argument, possessive=kind.startswith("POSSESSIVE"))
    if kind == "BRANCH":
        return 1 if _exclusive(argument[1]) else sum(_ways(option) for option in argument[1])
    if kind == "SUBPATTERN":
        return _ways(argument[-1])
    if kind == "ATOMIC_GROUP":
        return _ways(argument)
    if kind in ("ASSERT", "ASSERT_NOT"):
        return _ways(argument[1])
    if kind.startswith("GROUPREF"):
        raise _Unbounded("it refers back to a group")
    return 1


def _exclusive(options: Iterable[Iterable[tuple[Any, Any]]]) -> bool:
    """Whether at most one of the alternatives matches at a place: they are plain words, and none begins with another."""
    words = []
    for option in options:
        if any(str(kind) != "LITERAL" for kind, _ in option):
            return False
        words.append("".join(chr(code) for _, code in option).casefold())
    words.sort()
    return not any(after.startswith(word) for word, after in pairwise(words))


def _repeat(least: int, most: int, body: Any, *, possessive: bool) -> int:
    inside = _ways(body)
    if int(most) > 1 and (inside > 1 or len(set(body.getwidth())) > 1):
        raise _Unbounded("it repeats something that has a repeat or an option in it")
    return inside if possessive else inside * (min(int(most), MAX_TEXT) - min(int(least), MAX_TEXT) + 1)
