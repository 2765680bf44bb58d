"""Regular expressions of an operator that run on clients' texts: RE2's, which take about the same time for any text.

Syntax: https://github.com/google/re2/wiki/Syntax
"""

from typing import Any, Protocol

MAX_TEXT = 600  # characters that a rule looks at
MAX_PATTERN = 500  # characters of one pattern
MAX_BYTES = 1 << 20  # of the memory of one compiled pattern


class Hit(Protocol):
    """A place that a pattern has found."""

    def group(self) -> str:
        """The text there."""


class Pattern(Protocol):
    """A compiled regular expression."""

    def search(self, text: str, /) -> Hit | None:
        """The first place that fits."""


def compiled(pattern: str) -> Pattern:
    """The pattern, in any case of letters; raises ValueError when it is none."""
    import re2  # noqa: PLC0415 - takes 20 ms, which only a configuration with patterns pays

    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"is longer than {MAX_PATTERN} characters")
    options: Any = re2.Options()
    options.case_sensitive, options.log_errors, options.max_mem = False, False, MAX_BYTES
    try:
        found: Pattern = re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(f"is not a regular expression of RE2: {error.args[0].decode('utf-8', 'replace')}") from None
    return found


def checked(pattern: str) -> str:
    """Return the pattern; raises ValueError when it is no regular expression."""
    compiled(pattern)
    return pattern
