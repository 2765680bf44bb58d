"""Questions of one worker to all others, passed on by the supervisor, and the counts of those that have ended."""

import asyncio
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from lexora_router.workers.frames import Header

# Of a worker that answers nothing no more than so many questions are waited for.
MOST_WAITING = 32


class Peer(Protocol):
    """A worker that serves."""

    number: int
    pid: int
    kept: bytes  # its counts, as it has left them last
    adopted: dict[int, bytes]  # counts of others that it was given, by number, which `kept` may lack

    def send(self, header: Header, body: bytes = b"") -> None:
        """Send it a frame."""


class Part(NamedTuple):
    """The answer of one worker; None: it gave none in time."""

    worker: int
    pid: int
    body: bytes | None


class Hub:
    """The workers that serve, and the questions that are open."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self._first: Peer | None = None
        self._orphaned: list[bytes] = []  # counts that no worker has taken over yet
        self._open: dict[int, tuple[Peer, asyncio.Future[bytes | None]]] = {}
        self._numbers = 0

    def join(self, peer: Peer) -> None:
        """A worker serves from now on."""
        self.peers.append(peer)
        self._name_first()
        while self._orphaned:
            self._adopt(peer, self._orphaned.pop())

    def leave(self, peer: Peer) -> None:
        """A worker has ended: what it counted is counted on by another one, so that no sum goes down."""
        for number, (asked, _) in list(self._open.items()):
            if asked is peer:
                self.answer(number, None)
        if peer in self.peers:
            self.peers.remove(peer)
            self._name_first()
        for counts in filter(None, (peer.kept, *peer.adopted.values())):
            if self.peers:
                self._adopt(self.peers[0], counts)
            else:
                self._orphaned.append(counts)

    async def ask(self, name: str, body: bytes, seconds: float, *, but: Peer | None = None) -> list[Part]:
        """Ask all workers but one; those that do not answer in so many seconds are among the answers with None."""
        asked = [peer for peer in self.peers if peer is not but]
        answers = [self._ask(peer, name, body) for peer in asked]
        if answers:
            await asyncio.wait([future for _, future in answers], timeout=seconds)
        parts = []
        for peer, (number, future) in zip(asked, answers, strict=True):
            self._open.pop(number, None)
            parts.append(Part(peer.number, peer.pid, future.result() if future.done() else None))
        return parts

    def answer(self, number: int, body: bytes | None) -> None:
        """A worker has answered a question; one that comes too late is dropped."""
        found = self._open.pop(number, None)
        if found is not None:
            found[1].set_result(body)

    def keep(self, peer: Peer, adopted: int, counts: bytes) -> None:
        """What a worker has counted by now, with those of others that it was given, up to a number."""
        peer.kept = counts
        for number in [number for number in peer.adopted if number <= adopted]:
            del peer.adopted[number]

    def _ask(self, peer: Peer, name: str, body: bytes) -> tuple[int, asyncio.Future[bytes | None]]:
        self._numbers += 1
        future = asyncio.get_running_loop().create_future()
        if sum(asked is peer for asked, _ in self._open.values()) >= MOST_WAITING:
            future.set_result(None)
        else:
            self._open[self._numbers] = (peer, future)
            peer.send({"kind": "question", "id": self._numbers, "name": name}, body)
        return self._numbers, future

    def _name_first(self) -> None:
        if self.peers and self.peers[0] is not self._first:
            self._first = self.peers[0]
            self._first.send({"kind": "first"})

    def _adopt(self, heir: Peer, counts: bytes) -> None:
        self._numbers += 1
        heir.adopted[self._numbers] = counts
        heir.send({"kind": "adopt", "id": self._numbers}, counts)


def packed(parts: Iterable[Part]) -> tuple[list[list[int | None]], bytes]:
    """Answers as one body, and what says where each begins."""
    found = list(parts)
    index: list[list[int | None]] = [[part.worker, part.pid, None if part.body is None else len(part.body)] for part in found]
    return index, b"".join(part.body or b"" for part in found)


def unpacked(index: list[list[int | None]], body: bytes) -> list[Part]:
    """The answers again."""
    parts, at = [], 0
    for worker, pid, size in index:
        assert worker is not None
        assert pid is not None
        parts.append(Part(worker, pid, None if size is None else body[at : at + size]))
        at += size or 0
    return parts
