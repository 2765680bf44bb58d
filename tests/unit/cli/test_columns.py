import io

import pytest
from rich.console import Console
from rich.text import Text

from lexora_cli import screen
from lexora_cli.columns import columns

HEAD = ("name", "address", "why~")
ROWS = [("main", "http://127.0.0.1:8000", ""), ("日本", Text("x", "red"), "the probe failed: Connection refused")]


def plain(lines: list[Text]) -> list[str]:
    return [line.plain for line in lines]


def test_columns_stand_below_each_other_and_no_line_ends_in_blanks() -> None:
    assert plain(columns(HEAD, ROWS)) == [
        "name  address                why",
        "main  http://127.0.0.1:8000",
        "日本  x                      the probe failed: Connection refused",
    ]


def test_only_what_may_be_cut_is_cut_to_a_width() -> None:
    lines = columns(HEAD, ROWS, width=40)
    assert plain(lines)[1:] == ["main  http://127.0.0.1:8000", "日本  x                      the probe …"]
    assert max(line.cell_len for line in lines) == 40
    assert plain(columns(HEAD, ROWS, width=10))[2].endswith("  the…")


def test_of_several_the_longest_is_cut_first() -> None:
    (_, line) = columns(("a~", "b~"), [("x" * 20, "y" * 10)], width=24)
    assert line.plain == "x" * 11 + "…  " + "y" * 10


def test_what_the_caller_hands_in_stays_as_it_is() -> None:
    cell = Text("red", "red")
    (_, line) = columns(("colour",), [(cell,)])
    assert cell.plain == "red"
    assert [span.style for span in line.spans] == ["red"]


@pytest.mark.parametrize("terminal", [False, True])
def test_lines_are_shown_whole_however_narrow_the_screen(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    narrow = Console(file=file, width=20, soft_wrap=True, highlight=False, force_terminal=terminal, color_system=None)
    monkeypatch.setattr(screen, "out", lambda: narrow)
    screen.show(columns(HEAD, ROWS))
    assert file.getvalue().splitlines() == plain(columns(HEAD, ROWS))
