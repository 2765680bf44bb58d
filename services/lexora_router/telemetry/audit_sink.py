"""Where audit events go: a file of their own, one JSON object a line, or the log."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from io import FileIO

import msgspec
import structlog

from lexora_router.access.audit import AuditEvent
from lexora_router.telemetry.writer import LineWriter

MODE = 0o600
_log = structlog.get_logger("audit")
_failures = structlog.get_logger("lexora.audit")
_encode = msgspec.json.Encoder(enc_hook=list).encode


def to_log(event: AuditEvent) -> None:
    """Write an event to the log, where its logger is `audit`."""
    _log.info(event.event, logger="audit", **event.facts)


class AuditFile:
    """A file that lines are added to, by a thread. It is opened for each batch, so that it may be moved away at any time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._failing = False
        self._open().close()  # raises OSError now, and not with the first event
        self._writer = LineWriter(self)

    def note(self, event: AuditEvent) -> None:
        """Write an event down; never blocks."""
        at = datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self._writer.write(_encode({"time": at, "event": event.event, **event.facts}).decode() + "\n")

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def write(self, lines: str) -> None:
        """Add lines to the file: the thread's own."""
        try:
            with self._open() as file:
                file.write(lines.encode())
        except OSError as error:
            if not self._failing:
                _failures.error("audit_failing", file=self._path, reason=error.strerror or str(error))
            self._failing = True
            raise
        self._failing = False

    def flush(self) -> None:
        """Nothing: each batch is written at once."""

    def _open(self) -> FileIO:
        return FileIO(os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE), "wb")


def audit_sink(path: str | None) -> tuple[Callable[[AuditEvent], None], Callable[[], None]]:
    """What writes events, and what ends that. Raises OSError for a file that cannot be written."""
    if path is None:
        return to_log, lambda: None
    file = AuditFile(path)
    return file.note, file.close
