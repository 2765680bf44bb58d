"""Writes what was measured into docs/performance.md, between two marks, and its plot beside it."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- bench: written by `make bench-docs` -->", "<!-- /bench -->"
PAGE = "performance.md"
PLACE = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)


def write(tables: str, plot: str, docs: Path | None = None) -> None:
    """Replace what is between the marks. Raises ValueError when the page has none."""
    docs = docs or DOCS
    block = f"{BEGIN}\n\n{tables}\n\n![CPU and latency against load](performance.svg)\n\n{END}"
    changed = PLACE.sub(lambda _: block, page(docs))
    (docs / PAGE).write_text(changed)
    (docs / "performance.svg").write_text(plot)


def page(docs: Path | None = None) -> str:
    """The page as it stands. Raises ValueError unless it has one place for the tables."""
    text = ((docs or DOCS) / PAGE).read_text()
    if len(PLACE.findall(text)) != 1:
        raise ValueError(f"{PAGE} has no place for the tables: {BEGIN} ... {END}")
    return text
