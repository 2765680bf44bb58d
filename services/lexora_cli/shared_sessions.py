"""Sessions of the page, in every worker of a gateway: a browser's next request may come to any of them."""

import asyncio
from collections.abc import Awaitable

import msgspec

from lexora_gateway import Sessions
from lexora_router.workers.link import WorkerLink

NEWS, ALL = "session", "sessions"


class SharedSessions:
    """Keeps the sessions of this worker and of the others the same."""

    def __init__(self, sessions: Sessions, link: WorkerLink) -> None:
        self._sessions = sessions
        self._link = link
        self._sending: set[asyncio.Task[object]] = set()
        sessions.send = self._send
        link.answer(NEWS, self._hear)
        link.answer(ALL, self._all)
        link.begin(self._fetch)

    async def _fetch(self) -> None:
        """Take the sessions that the others have."""
        for part in await self._link.ask(ALL):
            for news in msgspec.msgpack.decode(part.body, type=list[bytes]) if part.body is not None else ():
                self._sessions.hear(news)

    def _send(self, news: bytes) -> Awaitable[object]:
        """Begin to send it to the others; awaited, it returns when they have it."""
        task: asyncio.Task[object] = asyncio.create_task(self._link.ask(NEWS, news))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return task

    async def _hear(self, news: bytes) -> bytes:
        self._sessions.hear(news)
        return b""

    async def _all(self, _: bytes) -> bytes:
        return msgspec.msgpack.encode(self._sessions.news())
