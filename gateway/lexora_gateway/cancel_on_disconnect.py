"""A client that goes away cancels the work done for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from lexora_gateway.asgi_types import Receive

T = TypeVar("T")


class ClientGone(Exception):
    """The client closed its connection before the answer was whole."""


class _Watch:
    """Cancels a task when receive() tells of a disconnect."""

    __slots__ = ("_receive", "_task", "gone")

    def __init__(self, receive: Receive, task: asyncio.Task[object]) -> None:
        self._receive = receive
        self._task = task
        self.gone = False

    async def run(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._task.cancel()


async def until_gone(receive: Receive, work: Awaitable[T]) -> T:
    """Do `work` in this task; the moment the client leaves it is cancelled and ClientGone is raised.

    The request's body must have been read. The end of the response must be sent after this returns, because servers
    report a finished response as a disconnect too.
    """
    task = asyncio.current_task()
    assert task is not None
    watch = _Watch(receive, task)
    watcher = asyncio.create_task(watch.run())
    try:
        return await work
    except BaseException:
        # An outer cancellation at the same time leaves a count above 0 and must go on as one.
        if watch.gone and task.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()
