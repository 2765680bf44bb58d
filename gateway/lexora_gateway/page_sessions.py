"""Sessions of the page: the server keeps the credential, the browser has a random word for it."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SESSIONS = 1024
MAX_OF_ONE = 8  # sessions with the same credential: one key cannot push all others out
IDLE_SECONDS = 30 * 60.0  # an open page asks every two seconds
LONGEST_SECONDS = 12 * 3600.0


@dataclass(slots=True)
class _Session:
    credential: str = field(repr=False)
    ends: float
    idle_from: float


class Sessions:
    """Sessions by the SHA-256 of their words, the one used last at the end. `clock` is monotonic, in seconds.

    Whether a credential still holds is for the router to say, on each use.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, credential: str) -> str:
        """A new session; gives its word. The oldest ones are ended for it where there are too many."""
        now = self._clock()
        same = [digest for digest, each in self._sessions.items() if each.credential == credential]
        for digest in same[: max(0, len(same) + 1 - MAX_OF_ONE)]:
            del self._sessions[digest]
        while len(self._sessions) >= MAX_SESSIONS:
            self._sessions.popitem(last=False)
        word = secrets.token_urlsafe(32)
        self._sessions[_digest(word)] = _Session(credential, now + LONGEST_SECONDS, now)
        return word

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
        return session.credential

    def close(self, word: str) -> None:
        """End a session, if there is one."""
        self._sessions.pop(_digest(word), None)


def _digest(word: str) -> bytes:
    return sha256(word.encode("utf-8", "replace")).digest()
