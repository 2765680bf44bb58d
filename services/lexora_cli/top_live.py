"""The live part of `lexora top`: look, draw, wait for a key."""

import contextlib
import select
import sys
import termios
import tty
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lexora_cli.client import RouterClient, RouterFailure
from lexora_cli.top_screen import Seen, picture

if TYPE_CHECKING:
    from rich.console import Console

LEAVE = frozenset("qQ\x03\x04")
CALLS = 100


def look(client: RouterClient) -> Seen:
    """What the router says now. Raises RouterFailure."""
    return Seen(client.health(), client.stats(), client.recent_calls(CALLS))


def watch(client: RouterClient, seen: Seen, router: str, interval: float, console: "Console") -> None:
    """Draw every `interval` seconds until a key or Ctrl-C says to leave; a router that is away is waited for."""
    from rich.live import Live  # noqa: PLC0415 - start-up time

    trouble = ""
    with _keys(), Live(console=console, screen=True, auto_refresh=False) as live, contextlib.suppress(KeyboardInterrupt):
        while True:
            live.update(picture(seen, router, trouble=trouble, width=console.width, height=console.height), refresh=True)
            if _pressed(interval) in LEAVE:
                return
            try:
                seen, trouble = look(client), ""
            except RouterFailure as failure:
                trouble = str(failure)


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Keys one by one and unseen, where there is a keyboard."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pressed(seconds: float) -> str:
    """The key that was pressed within so many seconds; empty for none."""
    keyboard = [sys.stdin] if sys.stdin.isatty() else []
    ready, _, _ = select.select(keyboard, [], [], seconds)
    return sys.stdin.read(1) if ready else ""
