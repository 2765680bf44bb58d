"""Sessions of the page: the server keeps the credential, the browser has a random word for it."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MAX_SESSIONS = 1024
MAX_OF_ONE = 8  # sessions with the same credential: one key cannot push all others out
IDLE_SECONDS = 30 * 60.0  # an open page asks every two seconds
LONGEST_SECONDS = 12 * 3600.0
ANNOUNCE_SECONDS = 60.0  # other processes of this gateway get word so often that a session is used


@dataclass(slots=True)
class _Session:
    credential: str = field(repr=False)
    ends: float
    idle_from: float
    announced: float = 0.0  # when it was sent to other processes last


class _News(msgspec.Struct, array_like=True):
    """What other processes of a gateway get about a session; one that `ends` in the past is over."""

    digest: bytes
    credential: str
    ends: float
    idle_from: float


class Sessions:
    """Sessions by the SHA-256 of their words, the one used last at the end. `clock` is monotonic, in seconds.

    Whether a credential still holds is for the router to say, on each use. Of several processes, which have the same clock,
    each has all sessions: `send` passes on what they take by `hear`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()
        self.send: Callable[[bytes], Awaitable[object]] | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, credential: str) -> str:
        """A new session; gives its word. The oldest ones are ended for it where there are too many."""
        now, word = self._clock(), secrets.token_urlsafe(32)
        self._keep(_digest(word), _Session(credential, now + LONGEST_SECONDS, now, now))
        return word

    def _keep(self, digest: bytes, session: _Session) -> None:
        credential = session.credential
        same = [other for other, each in self._sessions.items() if each.credential == credential]
        for other in same[: max(0, len(same) + 1 - MAX_OF_ONE)]:
            del self._sessions[other]
        while len(self._sessions) >= MAX_SESSIONS:
            self._sessions.popitem(last=False)
        self._sessions[digest] = session

    def credential(self, word: str) -> str:
        """The credential of a session that lives; empty for none."""
        digest, now = _digest(word), self._clock()
        session = self._sessions.get(digest)
        if session is None:
            return ""
        if now >= session.ends or now - session.idle_from >= IDLE_SECONDS:
            del self._sessions[digest]
            return ""
        session.idle_from = now
        self._sessions.move_to_end(digest)
        if self.send is not None and now - session.announced >= ANNOUNCE_SECONDS:
            session.announced = now
            self.send(_packed(digest, session))
        return session.credential

    def close(self, word: str) -> None:
        """End a session, if there is one."""
        self._sessions.pop(_digest(word), None)

    async def announce(self, word: str) -> None:
        """Let the other processes have what is by now: a session that was opened, or that was closed."""
        if self.send is not None:
            digest = _digest(word)
            await self.send(_packed(digest, self._sessions.get(digest)))

    def hear(self, news: bytes) -> None:
        """Take what another process has announced. Raises msgspec.MsgspecError for what is no news."""
        found = _decode(news)
        session = self._sessions.get(found.digest)
        if found.ends <= self._clock():
            self._sessions.pop(found.digest, None)
        elif session is None:
            self._keep(found.digest, _Session(found.credential, found.ends, found.idle_from, self._clock()))
        else:
            session.idle_from = max(session.idle_from, found.idle_from)

    def news(self) -> list[bytes]:
        """All sessions, for a process that has just started."""
        return [_packed(digest, session) for digest, session in self._sessions.items()]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_News).decode


def _packed(digest: bytes, session: _Session | None) -> bytes:
    if session is None:
        return _encode(_News(digest, "", 0.0, 0.0))
    return _encode(_News(digest, session.credential, session.ends, session.idle_from))


def _digest(word: str) -> bytes:
    return sha256(word.encode("utf-8", "replace")).digest()
