"""The file of keys: JSON lines, a head and then one key a line, with hashes only.

It is replaced as a whole, by rename: a reader finds the old file or the new one. Writers exclude each other by a lock on a file
beside it. Functions here read and write files: not for an event loop.
"""

import contextlib
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lexora_router.access.key_record import KeyRecord
from lexora_router.access.pauses import with_pauses
from lexora_router.config.regular_file import open_regular

MODE = 0o600
MAX_BYTES = 2**30
MAX_LINE = 2**20
LOCK_SECONDS = 10.0
COPIED = 2048  # lines between two pauses: to copy one takes a quarter of what reading it does
_LOCK_STEP = 0.02
_VERSION = 1
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class KeyFileError(OSError):
    """The file of keys cannot be used; the message names it, says what is wrong, and repeats nothing that is in it."""


class _Head(msgspec.Struct, forbid_unknown_fields=True):
    lexora_keys: int


_head = msgspec.json.Decoder(_Head).decode
_record = msgspec.json.Decoder(KeyRecord).decode
_encode = msgspec.json.Encoder().encode


def read_keys(path: Path) -> dict[bytes, KeyRecord]:
    """Every key of the file by the digest of the whole key, in the order of the file. Raises KeyFileError."""
    ids: set[str] = set()
    found: dict[bytes, KeyRecord] = {}
    try:
        with open_regular(path) as lines:
            _check_file(path, os.fstat(lines.fileno()))
            _check_head(path, lines.readline(MAX_LINE))
            for number, line in enumerate(with_pauses(iter(lambda: lines.readline(MAX_LINE), b"")), 2):
                if line == b"\n":
                    continue
                before = len(found)
                digest, record = _parsed(path, number, line)
                ids.add(record.id)
                found[digest] = record
                if not len(ids) == len(found) == before + 1:
                    raise KeyFileError(f"{path}:{number}: this key is in the file twice")
    except OSError as error:
        if isinstance(error, KeyFileError):
            raise
        raise KeyFileError(f"{path}: cannot be read: {error.strerror or error}") from None
    return found


def open_to_others(path: Path) -> bool:
    """Whether others than its owner may read the file."""
    try:
        return bool(path.stat().st_mode & _OTHERS)
    except OSError:
        return False


Change = Callable[[Sequence[KeyRecord]], Iterable[KeyRecord]]
Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The keys that a file had, by the digest of the whole key, when its stamp was this one."""

    stamp: Stamp | None
    keys: dict[bytes, KeyRecord]


@dataclass(frozen=True, slots=True)
class Edited(Snapshot):
    """What a file has after a change, and had at that change. `before` and `after` are the keys that differ, or all of them."""

    base: dict[bytes, KeyRecord]
    before: dict[bytes, KeyRecord]
    after: dict[bytes, KeyRecord]


def stamp_of(path: Path) -> Stamp | None:
    """What changes with each change of a file; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return _stamp(status) if stat.S_ISREG(status.st_mode) else None


def edit_keys(path: Path, change: Change, known: Snapshot | None = None) -> Edited:
    """Replace the keys of the file by what `change` makes of them; a file that is not there has none.

    Where the file is as in `known` it is not parsed, and of the lines those alone are made anew whose keys have changed.
    Raises KeyFileError, and what `change` raises; then the file is as it was.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    try:
        with _locked(path):
            stamp = stamp_of(path)
            if known is None or stamp is None or known.stamp != stamp:
                known = Snapshot(stamp, read_keys(path) if path.exists() else {})
            edit = _Edit(known, list(change(list(known.keys.values()))))
            return edit.written(path)
    except OSError as error:
        if isinstance(error, KeyFileError):
            raise
        raise KeyFileError(f"{path}: cannot be written: {error.strerror or error}") from None


class _Edit:
    """One change of a file."""

    def __init__(self, known: Snapshot, records: Sequence[KeyRecord]) -> None:
        self._known = known
        self._records = records
        self._keys: dict[bytes, KeyRecord] = {}
        self._before: dict[bytes, KeyRecord] = {}
        self._after: dict[bytes, KeyRecord] = {}

    def written(self, path: Path) -> Edited:
        """Write the file, and give what it has then."""
        if self._known.stamp is None:
            stamp = _replace(path, None, self._lines(iter(())))
        else:
            with open_regular(path) as source:
                lines = iter(lambda: source.readline(MAX_LINE), b"")
                next(lines, b"")  # the head
                stamp = _replace(path, self._known.stamp, self._lines(line for line in lines if line != b"\n"))
        if len(self._keys) - len(self._after) + len(self._before) != len(self._known.keys):  # some are gone, or elsewhere
            return Edited(stamp, self._keys, self._known.keys, self._known.keys, self._keys)
        return Edited(stamp, self._keys, self._known.keys, self._before, self._after)

    def _lines(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """A line for each record. A record that the file has already is found by its place: changes keep the order."""
        olds = iter(self._known.keys.items())
        digest, old = next(olds, (b"", None))
        for record in with_pauses(self._records, COPIED):
            if record is old:
                self._keys[digest] = record
                line = next(lines, b"")
                yield line if line.endswith(b"\n") else line + b"\n"
                digest, old = next(olds, (b"", None))
                continue
            if old is not None and record.id == old.id:
                self._before[digest] = old
                next(lines, b"")
                digest, old = next(olds, (b"", None))
            made = record.digest()
            self._keys[made] = self._after[made] = record
            yield _encode(record) + b"\n"


def _check_file(path: Path, status: os.stat_result) -> None:
    if status.st_size > MAX_BYTES:
        raise KeyFileError(f"{path}: is larger than {MAX_BYTES} bytes")
    if status.st_mode & _OTHERS_WRITE:
        raise KeyFileError(f"{path}: others than its owner may write it; run `chmod 600 {path}`")


def _check_head(path: Path, line: bytes) -> None:
    try:
        version = _head(line).lexora_keys
    except (msgspec.DecodeError, RecursionError):
        raise KeyFileError(f'{path}:1: is no file of keys: its first line must be {{"lexora_keys":{_VERSION}}}') from None
    if version != _VERSION:
        raise KeyFileError(f"{path}:1: is of version {version}, and this is for version {_VERSION}")


def _parsed(path: Path, number: int, line: bytes) -> tuple[bytes, KeyRecord]:
    try:
        record = _record(line)
        return record.digest(), record
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise KeyFileError(f"{path}:{number}: {error}") from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Be the only writer. The lock's file stays: to remove it would let two in."""
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
    try:
        _give_to_owner(lock, path)
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise KeyFileError(f"{path}: another process has been writing it for {LOCK_SECONDS:g} s") from None
                time.sleep(_LOCK_STEP)
        yield
    finally:
        os.close(lock)


def _give_to_owner(descriptor: int, path: Path) -> None:
    """Where root edits the file of a service, it stays the service's: of the file's owner, else of its folder's."""
    if os.geteuid() == 0:
        owner = path.stat() if path.exists() else path.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _replace(path: Path, stamp: Stamp | None, lines: Iterable[bytes]) -> Stamp | None:
    """Replace the file if it still has this stamp; gives that of the new one, None where it has been changed again already."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600 from the start
    try:
        with open(descriptor, "wb") as file:
            file.write(_encode(_Head(_VERSION)) + b"\n")
            file.writelines(lines)
            _give_to_owner(file.fileno(), path)
            file.flush()
            os.fsync(file.fileno())
            if stamp_of(path) != stamp:
                raise KeyFileError(f"{path}: was changed by another hand meanwhile; nothing is done, try again")
            written = os.fstat(file.fileno())
            os.replace(name, path)
            moved = os.fstat(file.fileno())  # a file that is moved gets another ctime
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return _stamp(moved) if _stamp(moved)[:3] == _stamp(written)[:3] else None
