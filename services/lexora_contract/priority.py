"""Priorities: one scale from 0 to 100, where more is earlier.

The names sit on the scale at equal distance, so that names and numbers mix: `low` is 0, `normal` 50, `high` 100. No number
beats `high` or is later than `low`, and 70 lies between `normal` and `high`. The distance of two names is one CLASS.
"""

from typing import Final

LOW: Final = 0
NORMAL: Final = 50
HIGH: Final = 100
CLASS: Final = 50

WORDS: Final = {"high": HIGH, "normal": NORMAL, "low": LOW}


def parse_priority(text: str) -> int:
    """The priority, 0 to 100, of `high`, `normal`, `low` (any case) or of a whole number from 0 to 100.

    Raises ValueError, with a message for the client, for anything else.
    """
    word = text.strip().lower()
    named = WORDS.get(word)
    if named is not None:
        return named
    # Short and ASCII first: int() would also take "+7", "1_0" and digits of other scripts.
    if len(word) <= 3 and word.isascii() and word.isdigit() and int(word) <= HIGH:
        return int(word)
    raise ValueError(f"priority must be high, normal, low or a whole number from 0 to 100, not {text[:32]!r}")
