"""A SharedState in the coordinator of the workers of one machine, over its unix socket."""

import asyncio
from collections.abc import Callable
from typing import cast

from lexora_router.state.frames import BadFrame, Exchange, FromStore, Given, Leave, News, Reader, Refused, packed
from lexora_router.state.port import Answer, Batch, StateUnavailable


class SocketState:
    """See SharedState. `path` is the coordinator's socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: _Connection | None = None
        self._heard: Callable[[str, str], None] = lambda *_: None

    @property
    def where(self) -> str:
        """The socket."""
        return self._path

    async def open(self) -> None:
        """Connect."""
        await self.close()
        try:
            _, self._connection = await asyncio.get_running_loop().create_unix_connection(
                lambda: _Connection(self._on_news), self._path
            )
        except OSError as error:
            raise StateUnavailable(f"the coordinator of the workers cannot be reached: {error.strerror or error}") from error

    async def exchange(self, batch: Batch) -> Answer:
        """One frame each way."""
        frame = Exchange(batch.member, batch.ttl, batch.number, batch.join, list(batch.asks))
        given = await self._asked(frame)
        return Answer(given.known, given.members, tuple(given.answers))

    def on_news(self, heard: Callable[[str, str], None]) -> None:
        """Call this with a program and a member when news of it come in."""
        self._heard = heard

    async def leave(self, member: str) -> None:
        """End the membership."""
        await self._asked(Leave(member))

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    async def _asked(self, frame: Exchange | Leave) -> Given:
        if self._connection is None:
            raise StateUnavailable("there is no connection to the coordinator of the workers")
        try:
            return await self._connection.ask(packed(frame))
        except BadFrame as error:
            raise StateUnavailable(str(error)) from error
        except asyncio.CancelledError:
            await self.close()  # an answer that comes late would be taken for the next one's
            raise

    def _on_news(self, news: News) -> None:
        for program in news.programs:
            self._heard(program, news.member)


class _Connection(asyncio.Protocol):
    """One question at a time; news come in between."""

    def __init__(self, on_news: Callable[[News], None]) -> None:
        self._on_news = on_news
        self._reader = Reader[FromStore](FromStore)
        self._waiting: asyncio.Future[Given] | None = None
        self._transport: asyncio.Transport | None = None

    async def ask(self, frame: bytes) -> Given:
        """Send a frame, and wait for what is given for it. Raises StateUnavailable."""
        if self._transport is None or self._transport.is_closing():
            raise StateUnavailable("the coordinator of the workers is gone")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(frame)
        return await self._waiting

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own are no subclass

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except BadFrame as error:
            self._fail(f"the coordinator of the workers answers nonsense: {error}")
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._fail("the coordinator of the workers is gone")

    def _take(self, frame: FromStore) -> None:
        if isinstance(frame, News):
            self._on_news(frame)
        elif self._waiting is not None and not self._waiting.done():
            if isinstance(frame, Refused):
                self._fail(frame.reason)
            else:
                self._waiting.set_result(frame)

    def _fail(self, reason: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(StateUnavailable(reason))
