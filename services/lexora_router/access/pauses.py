"""Long work in a thread that lets the event loop go on beside it."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

ITEMS = 512  # 2 ms; with more turns a busy event loop would hold the work up for too long
# Really asleep: a thread that only yields has the interpreter again before another one has woken up. Without any of this each
# wake-up of the event loop would wait for Python's switch interval, 5 ms.
SECONDS = 0.0001

Item = TypeVar("Item")


def with_pauses(items: Iterable[Item], every: int = ITEMS) -> Iterator[Item]:
    """The items, with a moment for other threads after so many of them."""
    for number, item in enumerate(items, 1):
        yield item
        if not number % every:
            time.sleep(SECONDS)
