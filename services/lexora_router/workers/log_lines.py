"""The supervisor's own lines of the log, in the form of the workers', without what these need for it."""

import contextlib
import json
import os
import sys
import time
from typing import Literal

Level = Literal["info", "warning", "error"]


class LogLines:
    """Writes lines to stdout, each with one write: the workers write to the same place."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self._json = as_json
        self._quiet = quiet

    def info(self, event: str, **facts: object) -> None:
        """Something that is well."""
        if not self._quiet:
            self._write("info", event, facts)

    def warning(self, event: str, **facts: object) -> None:
        """Something to look at."""
        self._write("warning", event, facts)

    def error(self, event: str, **facts: object) -> None:
        """Something that is not done."""
        self._write("error", event, facts)

    def _write(self, level: Level, event: str, facts: dict[str, object]) -> None:
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now // 1000 % 10**6:06d}Z"
        if self._json:
            line = json.dumps({**facts, "event": event, "level": level, "timestamp": stamp}, default=str, separators=(",", ":"))
        else:
            said = " ".join(f"{name}={value}" for name, value in sorted(facts.items()))
            line = f"{stamp} [{level:<9}] {event} {said}".rstrip()
        with contextlib.suppress(OSError):  # the reader of the log has gone, which is no reason to stop serving
            os.write(sys.stdout.fileno(), f"{line}\n".encode())
