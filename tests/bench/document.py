"""Writes what was measured into docs/performance.md, between two marks, and its plot beside it."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- bench: written by `make bench-docs` -->", "<!-- /bench -->"


def write(tables: str, plot: str, docs: Path = DOCS) -> None:
    """Replace what is between the marks. Raises ValueError when the page has none."""
    page = docs / "performance.md"
    text = page.read_text()
    block = f"{BEGIN}\n\n{tables}\n\n![CPU and latency against load](performance.svg)\n\n{END}"
    changed, count = re.subn(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: block, text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{page} has no place for the tables: {BEGIN} ... {END}")
    page.write_text(changed)
    (docs / "performance.svg").write_text(plot)
