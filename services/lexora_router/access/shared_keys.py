"""The keys that replicas share: all of them in memory, as the store has them by now."""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog

from lexora_router.access.audit import AuditLog, changes_of, note_changes
from lexora_router.access.key_changes import InvalidKey
from lexora_router.access.key_file import Change
from lexora_router.access.key_record import KeyRecord
from lexora_router.errors import AccessUnavailable
from lexora_router.state.link import StateLink
from lexora_router.state.programs.keys import CONFLICT, FULL, MAX_KEYS, KeysAnswer, KeysRequest, KeyText

READ_SECONDS = 0.5
"""From one look at the store to the next, where nothing is to be said there: a revocation is in force within 2 seconds."""
EDIT_SECONDS = 5.0
RESTORE_SECONDS = 10.0  # from one comparison with the store that did not fit to the next
MAX_SAID_CHARS = 64 * 1024  # of keys in one exchange
_TRIES = 5  # of a change that another replica's came before
_OTHERS = "another replica"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(KeyRecord).decode
_log = structlog.get_logger("lexora.keys")


@dataclass(slots=True)
class _Key:
    """A key as the store has it; without a record where it cannot be read, such as one of a later version."""

    revision: int
    text: str
    digest: bytes = b""
    record: KeyRecord | None = None


@dataclass(slots=True)
class _Edit:
    """A change that is said until it was heard."""

    put: list[KeyText]
    by: str
    done: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(slots=True)
class _Changes:
    before: dict[bytes, KeyRecord] = field(default_factory=dict)
    after: dict[bytes, KeyRecord] = field(default_factory=dict)


class SharedKeys:
    """A KeyStore that is the shared state, by its program `keys`; also a Participant of the link.

    While the store is out of reach, and before all was read for the first time, the keys that are here hold, and whether there
    are others is not known (AccessUnavailable). A store that has lost its memory gets back what is here.
    """

    program = "keys"

    def __init__(self, link: StateLink, audit: AuditLog) -> None:
        self.version = 0
        self.readable = False
        self._link = link
        self._audit = audit
        self._by_id: dict[str, _Key] = {}
        self._by_digest: dict[bytes, KeyRecord] = {}
        self._since = 0  # revisions that have been read
        self._asked_at = float("-inf")
        self._more = True  # is to be read at once
        self._restore: list[str] = []
        self._restored_at = float("-inf")
        self._read = asyncio.Event()  # all of it, once
        self._said: _Edit | None = None  # in the exchange that is under way
        self._edit: _Edit | None = None
        self._editing = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._by_digest)

    # What a KeyStore does.

    def known(self, digest: bytes) -> KeyRecord | None:
        """The key, if it is here."""
        return self._by_digest.get(digest)

    async def find(self, digest: bytes) -> KeyRecord | None:
        """The same. Raises AccessUnavailable for what is not here, when the store may have it."""
        found = self._by_digest.get(digest)
        if found is None and not self.readable:
            raise AccessUnavailable("Whether this key holds cannot be found out now; try again shortly.")
        return found

    def records(self) -> Iterable[KeyRecord]:
        """All keys, in the order in which they came."""
        return (key.record for key in self._by_id.values() if key.record is not None)

    async def edit(self, change: Change, by: str) -> None:
        """Change the keys for all replicas; it is in force here at the return, and at the others within 2 seconds.

        Raises AccessUnavailable where the store is out of reach, and what `change` raises. A change that another replica's has
        come before is made again.
        """
        async with self._editing:
            for _ in range(_TRIES):
                if await self._done(list(change(list(self.records()))), by):
                    return
        raise AccessUnavailable("Other replicas were changing the same keys; try again.")

    async def watch(self) -> None:
        """Nothing: the link does."""

    async def first_read(self, seconds: float) -> None:
        """Wait until all was read once, for at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._read.wait()

    async def _done(self, records: Sequence[KeyRecord], by: str) -> bool:
        changed = [self._text_of(record) for record in records if not self._has(record)]
        while changed:
            put, size = list[KeyText](), 0
            while changed and (not put or size + len(changed[0].text) <= MAX_SAID_CHARS):
                put.append(changed.pop(0))
                size += len(put[-1].text)
            if not await self._say(_Edit(put, by)):
                return False
        return True

    async def _say(self, edit: _Edit) -> bool:
        if not self.readable:
            raise _unreachable()
        self._edit = edit
        try:
            async with asyncio.timeout(EDIT_SECONDS):
                self._link.nudge()
                refused = await edit.done
        except TimeoutError:
            raise _unreachable() from None
        finally:
            self._edit = None
        if refused == FULL:
            raise InvalidKey(f"the shared state has {MAX_KEYS} keys, which is all that it takes")
        return refused != CONFLICT

    def _has(self, record: KeyRecord) -> bool:
        known = self._by_id.get(record.id)
        return known is not None and known.record is record

    def _text_of(self, record: KeyRecord) -> KeyText:
        known = self._by_id.get(record.id)
        return KeyText(record.id, 0 if known is None else known.revision, _encode(record).decode())

    # What a Participant does.

    def ask(self, now: float) -> KeysRequest | None:
        """What has changed since, and what is to be changed or put back."""
        self._said = self._edit
        if self._said is None and not self._restore and not self._more and now - self._asked_at < READ_SECONDS:
            return None
        self._asked_at = now
        restore, size = list[KeyText](), 0
        while self._restore and size < MAX_SAID_CHARS:
            key = self._by_id[id_ := self._restore.pop()]
            restore.append(KeyText(id_, key.revision, key.text))
            size += len(key.text)
        return KeysRequest(self._since, [] if self._said is None else self._said.put, restore)

    def hear(self, answer: KeysAnswer, now: float) -> None:
        """Take over what has changed; once all was read, nothing more is to be known."""
        said, self._said = self._said, None
        self._take(answer.read, said if said is not None and not answer.refused else None)
        if answer.read:
            self._since = max(self._since, answer.read[-1].revision)
        self._more = self._since < answer.head
        whole = not self._more and not self._restore
        if whole and answer.count != len(self._by_id) and now - self._restored_at > RESTORE_SECONDS:
            # There are keys under revisions that this replica has read already, or the store has lost some.
            self._restored_at = now
            self._restore = list(self._by_id) if answer.count < len(self._by_id) else []
            self._since, self._more, whole = 0, True, False
        if whole and not self.readable and answer.count <= len(self._by_id):
            self.readable, self.version = True, self.version + 1
            self._read.set()
            _log.info("keys_read", file="shared", keys=len(self))
        if self._more or self._restore:
            self._link.nudge()
        if said is not None and not said.done.done() and (answer.refused or not self._more):
            said.done.set_result(answer.refused)

    def alone(self, share: float, now: float) -> None:
        """The keys that are here hold; others cannot be known."""
        if self.readable:
            _log.error("shared_keys_unreadable", in_force=len(self))
        self.readable = False
        self.version += 1
        if self._edit is not None and not self._edit.done.done():
            self._edit.done.set_exception(_unreachable())

    def together(self, now: float, *, fresh: bool) -> None:
        """Read what has changed meanwhile."""
        self._more = True

    def _take(self, read: Sequence[KeyText], own: _Edit | None) -> None:
        """Put what was read in force, and write down what is another's change."""
        said = set() if own is None else {key.id for key in own.put}
        mine, others = _Changes(), _Changes()
        for each in read:
            old = self._by_id.get(each.id)
            if old is not None and old.text == each.text:
                old.revision = each.revision
                continue
            self._by_id[each.id] = key = _read(each)
            changes = mine if each.id in said else others
            if old is not None and old.record is not None:
                changes.before[old.digest] = old.record
                self._by_digest.pop(old.digest, None)
            if key.record is not None:
                self._by_digest[key.digest] = changes.after[key.digest] = key.record
            self.version += 1
        if self.readable:  # the first reading is no change
            for changes, by in ((mine, "" if own is None else own.by), (others, _OTHERS)):
                note_changes(self._audit, changes_of(changes.before, changes.after), by)


def _read(each: KeyText) -> _Key:
    try:
        record = _decode(each.text)
        return _Key(each.revision, each.text, record.digest(), record)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        _log.error("shared_key_unreadable", key=each.id)
        return _Key(each.revision, each.text)


def _unreachable() -> AccessUnavailable:
    return AccessUnavailable(
        "The keys could not be changed: the shared state is out of reach. See what is there, and try again."
    )
