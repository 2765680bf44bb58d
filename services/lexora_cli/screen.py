"""What commands print, and how: colours on a terminal only, and nothing that a terminal would obey."""

import json
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from lexora_contract.escape import escaped, escaped_json, escaped_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console
    from rich.text import Text


@cache
def out() -> "Console":
    """The console on stdout. It heeds NO_COLOR, and wraps nothing, so that lines can be copied."""
    return _console(stderr=False)


@cache
def err() -> "Console":
    """The console on stderr."""
    return _console(stderr=True)


def plain(line: str) -> None:
    """A line to stdout, escaped but not wrapped."""
    sys.stdout.write(f"{escaped(line)}\n")


def plain_lines(text: str) -> None:
    """As `plain`, for text of several lines."""
    sys.stdout.write(f"{escaped_lines(text)}\n")


def print_json(data: Any) -> None:
    """JSON to stdout, escaped within its own rules."""
    sys.stdout.write(f"{escaped_json(json.dumps(data, indent=2, ensure_ascii=False))}\n")


def show(lines: "Iterable[Text]") -> None:
    """Lines to stdout, as long as they are. What others chose in them must be escaped before."""
    for line in lines:
        out().print(line)


def complain(message: str) -> None:
    """One line to stderr: `lexora: ...`."""
    sys.stderr.write(f"lexora: {escaped(message)}\n")


def fail(message: str, code: int = 1) -> NoReturn:
    """Say what is wrong and leave."""
    complain(message)
    raise typer.Exit(code)


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console  # noqa: PLC0415 - start-up time

    return Console(stderr=stderr, highlight=False, soft_wrap=True)
