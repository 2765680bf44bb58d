"""The keys of a file, in memory, as the file is by now."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import structlog

from lexora_router.access.audit import AuditLog, changes_of, note_changes
from lexora_router.access.key_file import Change, Edited, KeyFileError, Snapshot, edit_keys, open_to_others, read_keys, stamp_of
from lexora_router.access.key_record import KeyRecord
from lexora_router.errors import AccessUnavailable

# A revocation is in force within 2 seconds: a look each, then the file must have been left alone, then it is read.
LOOK_SECONDS = 0.5
SETTLE_SECONDS = 0.1
# What keeps a file from being read may pass without a trace at the file: it is tried again.
RETRY_LOOKS = 10
_DROPPED = 256  # keys of an old snapshot that are given back at a time

_log = structlog.get_logger("lexora.keys")


class WatchedKeys:
    """A KeySource that is a file. The constructor reads it: not for an event loop that serves. Raises KeyFileError.

    While the file cannot be read, the last good snapshot holds, and whether there are other keys is not known
    (AccessUnavailable). `readable` says which.
    """

    def __init__(self, path: Path, audit: AuditLog) -> None:
        self.path = path
        self._audit = audit
        self.readable = True
        self.version = 0
        self._stamp = stamp_of(path)
        self._keys = read_keys(path)
        self._reading = asyncio.Lock()
        if open_to_others(path):
            _log.warning("key_file_open", file=str(path), advice=f"others than its owner can read it: chmod 600 {path}")

    def __len__(self) -> int:
        return len(self._keys)

    def known(self, digest: bytes) -> KeyRecord | None:
        """The key of the snapshot."""
        return self._keys.get(digest)

    async def find(self, digest: bytes) -> KeyRecord | None:
        """The same. Raises AccessUnavailable for what the snapshot does not have, when the file may have it."""
        found = self._keys.get(digest)
        if found is None and not self.readable:
            raise AccessUnavailable("Whether this key holds cannot be found out now; try again shortly.")
        return found

    async def watch(self) -> None:
        """Follow the file until cancelled."""
        looks = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            looks += 1
            try:
                await self._follow(again=looks % RETRY_LOOKS == 0)
            except Exception:  # the boundary: a bug in one look must not keep revocations from coming into force
                _log.exception("bug", work="keys")

    async def _follow(self, *, again: bool) -> None:
        """Read the file if it has changed; also one that could not be read, if `again`."""
        stamp = await asyncio.to_thread(stamp_of, self.path)
        if stamp == self._stamp and (self.readable or not again):
            return
        await asyncio.sleep(SETTLE_SECONDS)  # it may still be written
        if await asyncio.to_thread(stamp_of, self.path) == stamp and not (self.readable and stamp == self._stamp):
            await asyncio.shield(asyncio.ensure_future(self.refresh()))  # what is in force is written down, too

    def records(self) -> Iterable[KeyRecord]:
        """All keys, in the order of the file."""
        return self._keys.values()

    async def edit(self, change: Change, by: str) -> None:
        """Change the file as `edit_keys` does, and as that raises; it is in force at the return. `by` is for the audit log."""
        async with self._reading:  # no thread waits for another one's lock
            known = Snapshot(self._stamp, self._keys) if self.readable else None
            edited = await asyncio.to_thread(edit_keys, self.path, change, known)
            await self._take(edited, by)

    async def refresh(self, by: str = "file") -> None:
        """Read the file now."""
        async with self._reading:
            stamp = await asyncio.to_thread(stamp_of, self.path)
            try:
                keys = await asyncio.to_thread(read_keys, self.path)
            except KeyFileError as error:
                if self.readable or stamp != self._stamp:
                    _log.error("key_file_unreadable", problem=str(error), in_force=len(self._keys))
                self._stamp, self.readable = stamp, False
                self.version += 1  # what was not there before may be there now
                return
            await self._take(Edited(stamp, keys, self._keys, self._keys, keys), by)

    async def _take(self, edited: Edited, by: str) -> None:
        """Put these keys in force, then write down by what they differ."""
        old, self._keys = self._keys, edited.keys
        self._stamp, self.readable = edited.stamp, True
        self.version += 1
        if edited.base is not old:  # the file had changed before, and was not looked at yet
            note_changes(self._audit, await asyncio.to_thread(changes_of, old, edited.base), "file")
        note_changes(self._audit, await asyncio.to_thread(changes_of, edited.before, edited.after), by)
        _log.info("keys_read", file=str(self.path), keys=len(edited.keys))
        await _dropped(old)


async def _dropped(keys: dict[bytes, KeyRecord]) -> None:
    """Give the keys back a few at a time: all at once would hold the event loop for as long as it takes."""
    while keys:
        for _ in range(min(_DROPPED, len(keys))):
            keys.popitem()
        await asyncio.sleep(0)
