"""Text that clients and engines chose, as a terminal may show it.

Escaped are control characters (C0, DEL, C1), the marks that turn the direction of writing, separators of lines and paragraphs,
and lone surrogates, which no stream can encode: they could move the cursor, forge a line, or show another text than there is.
"""

import re

_DIRECTION = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_UNSAFE = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029{_DIRECTION}\ud800-\udfff]")
_UNSAFE_IN_LINES = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029{_DIRECTION}\ud800-\udfff]")


def escaped(text: str) -> str:
    r"""One line: an escape sign is shown as `\x1b`, a line break as `\n`, U+202E as `\u202e`."""
    return text if text.isprintable() else _UNSAFE.sub(_as_python, text)


def escaped_lines(text: str) -> str:
    """As `escaped`, for text of several lines: tabs and line breaks stay."""
    return text if text.isprintable() else _UNSAFE_IN_LINES.sub(_as_python, text.replace("\r\n", "\n"))


def escaped_json(text: str) -> str:
    r"""JSON of the same value, in whose strings those signs are written as `\u001b`."""
    return text if text.isprintable() else _UNSAFE_IN_LINES.sub(_as_json, text)


def _as_python(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _as_json(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
