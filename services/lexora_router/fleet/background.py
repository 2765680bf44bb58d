"""Work in the background that a bug must not end: without probes, say, no endpoint would ever come back."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog

_Key = TypeVar("_Key")
Work = Callable[[], Coroutine[Any, Any, None]]

_log = structlog.get_logger("lexora.background")


@contextmanager
def survived(work: str, **about: str) -> Iterator[None]:
    """Log what goes wrong inside, and go on behind it; a cancellation passes."""
    try:
        yield
    except Exception:  # the boundary: a bug in one round must not end those to come
        _log.exception("bug", work=work, **about)


async def one_each(wanted: Callable[[], Mapping[_Key, Work]], moved: asyncio.Event) -> None:
    """Run one task for each key that is wanted, and look what is wanted whenever `moved` is set; until cancelled."""
    running: dict[_Key, asyncio.Task[None]] = {}
    async with asyncio.TaskGroup() as group:
        while True:
            moved.clear()
            _follow(running, wanted(), group)
            await moved.wait()


def _follow(running: dict[_Key, asyncio.Task[None]], work: Mapping[_Key, Work], group: asyncio.TaskGroup) -> None:
    """A function of its own: its names hold no key that is gone."""
    for key in running.keys() - work.keys():
        running.pop(key).cancel()
    for key, begin in work.items():
        if key not in running:
            running[key] = group.create_task(begin())
