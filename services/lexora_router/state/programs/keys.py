"""Keys that replicas share: what is stored of each, under a revision that each change raises.

A replica has all of them in memory, and reads what has changed since the revision that it has. A change is made from certain
revisions: where one of these is not the last any more, nothing of the change is done. The store may lose its memory: then
replicas put back what they have, each key under its old revision.
"""

from msgspec import Struct

from lexora_router.state.program import ProgramKind, Turn, lua_beside

MAX_KEYS = 200_000
MAX_READ = 256  # keys in one answer
MAX_READ_CHARS = 64 * 1024  # of texts in one answer; one key is in it in any case
CONFLICT, FULL = "conflict", "full"


class KeyText(Struct, array_like=True):
    """One key: its public id, a revision, and its record as JSON. The record has the hash of the key, never the key."""

    id: str
    revision: int
    text: str


class KeysRequest(Struct):
    """`since`: the revision that is known. `put`: a change, of keys from these revisions (0: none yet), all or none.

    `restore`: keys as they were, of which those count that are newer than the store's.
    """

    since: int
    put: list[KeyText] = []
    restore: list[KeyText] = []


class KeysAnswer(Struct):
    """`read`: keys with a higher revision than `since`, oldest first, as many as fit. `head`: the highest revision.

    `count` is that of all keys. `refused`: why the change was not done; empty where it was, also before.
    """

    head: int
    count: int
    read: list[KeyText]
    refused: str = ""


class Keys:
    """The memory of the program."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[int, str]] = {}
        self._head = 0

    def run(self, request: KeysRequest, turn: Turn) -> KeysAnswer:
        """Restore, then change, then read."""
        for key in request.restore:
            if key.revision > self._keys.get(key.id, (0, ""))[0] and len(self._keys) < MAX_KEYS:
                self._keys[key.id] = key.revision, key.text
                self._head = max(self._head, key.revision)
                turn.news = True
        refused = self._put(request, turn)
        newer = [(revision, id, text) for id, (revision, text) in self._keys.items() if revision > request.since]
        newer.sort()
        read, chars = list[KeyText](), 0
        for revision, id, text in newer[:MAX_READ]:
            chars += len(text.encode())
            if read and chars > MAX_READ_CHARS:
                break
            read.append(KeyText(id, revision, text))
        return KeysAnswer(self._head, len(self._keys), read, refused)

    def _put(self, request: KeysRequest, turn: Turn) -> str:
        wanted = [key for key in request.put if self._keys.get(key.id, (0, ""))[1] != key.text]
        if any(self._keys.get(key.id, (0, ""))[0] != key.revision for key in wanted):
            return CONFLICT
        if len(self._keys) + sum(key.id not in self._keys for key in wanted) > MAX_KEYS:
            return FULL
        if wanted:
            self._head = max(self._head, request.since)
            turn.news = True
        for key in wanted:
            self._head += 1
            self._keys[key.id] = self._head, key.text
        return ""


KEYS = ProgramKind(KeysRequest, KeysAnswer, Keys, lua_beside(__file__))
