"""What commands print, and how: colours on a terminal only, and nothing that a terminal would obey."""

import re
import sys
from functools import cache
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console
    from rich.text import Text

# Control characters but for tab and newline; an engine's text must not move the cursor or set the window's title.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@cache
def out() -> "Console":
    """The console on stdout. It heeds NO_COLOR, and wraps nothing, so that lines can be copied."""
    return _console(stderr=False)


@cache
def err() -> "Console":
    """The console on stderr."""
    return _console(stderr=True)


def plain(text: str) -> None:
    """A line to stdout as it is."""
    sys.stdout.write(f"{text}\n")


def show(lines: "Iterable[Text]") -> None:
    """Lines to stdout, as long as they are."""
    for line in lines:
        out().print(line)


def harmless(text: str) -> str:
    """The text without control characters."""
    return _CONTROL.sub("", text)


def complain(message: str) -> None:
    """One line to stderr: `lexora: ...`."""
    sys.stderr.write(f"lexora: {harmless(message)}\n")


def fail(message: str, code: int = 1) -> NoReturn:
    """Say what is wrong and leave."""
    complain(message)
    raise typer.Exit(code)


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console  # noqa: PLC0415 - start-up time

    return Console(stderr=stderr, highlight=False, soft_wrap=True)
