"""A list of what happened last, of all workers of a router: in pages, the latest first, whichever of them is asked."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import msgspec
from google.protobuf.message import Message

from lexora_router.edge.pages import after, page
from lexora_router.errors import InvalidRequest
from lexora_router.workers.hub import Part

# When it happened, by a clock that the processes of a machine share; its number in its worker; the worker.
Place = tuple[float, int, int]
_Entries = list[tuple[Place, bytes]]


class Others(Protocol):
    """The other workers of a router, by the link to them; `number` is this one's."""

    number: int

    def answer(self, name: str, answer: Callable[[bytes], Awaitable[bytes]], /) -> None:
        """Answer their questions of this name with that."""

    async def ask(self, name: str, body: bytes = b"", /) -> list[Part]:
        """Ask all of them, for a bounded time."""
        ...


class WholeList:
    """The entries of this worker, which `own` gives with their instants and numbers, and those of the others; `most` in all."""

    def __init__(self, name: str, own: Callable[[], Iterable[tuple[float, int, Message]]], others: Others, most: int) -> None:
        self._name = name
        self._own = own
        self._others = others
        self._most = most
        others.answer(name, self._answer)

    async def page(self, size: int, token: str) -> tuple[list[bytes], str]:
        """So many messages behind the place of a token, and the token behind them. Raises InvalidRequest."""
        last = _place(token)
        parts = await self._others.ask(self._name)
        found = [msgspec.msgpack.decode(part.body, type=_Entries) for part in parts if part.body is not None]
        entries = sorted((entry for each in (self._entries(), *found) for entry in each), reverse=True)[: self._most]
        older = (entry for entry in entries if last is None or entry[0] < last)
        shown, token = page(older, size, lambda entry: tuple(map(repr, entry[0])))
        return [message for _, message in shown], token

    def _entries(self) -> _Entries:
        worker = self._others.number
        return [((at, number, worker), message.SerializeToString()) for at, number, message in self._own()]

    async def _answer(self, _: bytes) -> bytes:
        return msgspec.msgpack.encode(self._entries())


def _place(token: str) -> Place | None:
    """The place of the last entry that was shown."""
    key = after(token)
    if key is None:
        return None
    try:
        at, number, worker = key
        return float(at), int(number), int(worker)
    except ValueError:
        raise InvalidRequest("page_token is of another list.", "page_token") from None
