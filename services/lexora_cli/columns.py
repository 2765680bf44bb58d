"""Rows as aligned lines."""

from collections.abc import Iterable, Sequence

from rich.text import Text

from lexora_contract.escape import escaped

Cell = str | Text
GAP = 2
# A column that gives way keeps so many characters at least.
LEAST = 4


def columns(
    head: Sequence[str], rows: Iterable[Sequence[Cell]], *, style: str = "bold", width: int | None = None
) -> list[Text]:
    """The head and the rows, as wide as they are: nothing is cut, for addresses are there to be copied. No line ends in blanks.

    Strings are escaped: clients and engines choose them. With a `width` the columns whose head ends in `~` (which is not shown)
    are cut to what is left of it, the longest first.
    """
    names = [Text(name.removesuffix("~"), style) for name in head]
    table = [names, *([_text(cell) for cell in row] for row in rows)]
    widths = [max(row[place].cell_len for row in table) for place in range(len(head))]
    if width is not None:
        _cut(widths, [place for place, name in enumerate(head) if name.endswith("~")], width - GAP * (len(head) - 1))
    return [_line(row, widths) for row in table]


def _cut(widths: list[int], flexible: list[int], room: int) -> None:
    while sum(widths) > room and flexible:
        longest = max(flexible, key=widths.__getitem__)
        if widths[longest] <= LEAST:
            return
        widths[longest] -= 1


def _line(row: Sequence[Text], widths: Sequence[int]) -> Text:
    line = Text()
    for cell, width in zip(row, widths, strict=True):
        cell.truncate(width, overflow="ellipsis", pad=True)
        line.append(cell).append(" " * GAP)
    line.rstrip()
    return line


def _text(cell: Cell) -> Text:
    return cell.copy() if isinstance(cell, Text) else Text(escaped(cell))
