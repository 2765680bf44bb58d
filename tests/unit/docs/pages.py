"""Markdown pages taken apart: tables, links, headings, code."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[3]
PATHS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_LINK = re.compile(r"\[[^\]\[]+\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Page:
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[tuple[str, str]]:
        """Language and content of each fenced block."""
        return [(found[1], found[2]) for found in _FENCE.finditer(self.text)]

    @cached_property
    def prose(self) -> str:
        """The page without its fenced blocks."""
        return _FENCE.sub("", self.text)

    @cached_property
    def spans(self) -> list[str]:
        """Inline code."""
        return _SPAN.findall(self.prose)

    @cached_property
    def links(self) -> list[str]:
        return _LINK.findall(_SPAN.sub("", self.prose))

    @cached_property
    def headings(self) -> list[tuple[int, str]]:
        """Level and text."""
        return [(len(found[1]), found[2].strip()) for found in re.finditer(r"^(#{1,6}) (.+)$", self.prose, re.M)]

    @property
    def anchors(self) -> set[str]:
        """What links may name after `#`, as GitHub makes it from headings."""
        return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for _, text in self.headings}

    @cached_property
    def tables(self) -> list[list[list[str]]]:
        """Rows of cells; the first row is the head, the line below it is left out."""
        found = re.findall(r"(?:^\|.*\|$\n?)+", self.prose, re.M)
        return [[_cells(line) for i, line in enumerate(table.splitlines()) if i != 1] for table in found]

    def rows(self, *head: str) -> list[list[str]]:
        """Rows below the heads of all tables that begin with these columns."""
        found = [row for table in self.tables if table[0][: len(head)] == list(head) for row in table[1:]]
        assert found, f"{self.path.name}: no table begins with {head}"
        return found

    def table(self, *head: str) -> list[list[str]]:
        """Rows below the head of the one table that begins with these columns."""
        fitting = [table for table in self.tables if table[0][: len(head)] == list(head)]
        assert len(fitting) == 1, f"{self.path.name}: {len(fitting)} tables begin with {head}"
        return fitting[0][1:]


def page(name: str) -> Page:
    return Page(ROOT / name)


def code(cell: str) -> list[str]:
    """The inline code of a cell."""
    return _SPAN.findall(cell)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
