"""Where a process has its configuration from, and whether its file has changed since it was read."""

from collections.abc import Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Any

from lexora_router.config.load import Loaded, find, load

# Of the file that a path leads to: a file that is replaced by rename, or behind a link that was moved, is another one.
Stamp = tuple[Path, int, int, int]


class ConfigSource:
    """A file, the environment, and options of the command, which win. Methods read files: not for an event loop.

    `file` is what the user named, None to look in the usual places, unless `search` is false; `options` are values by key
    path, None for those that were not given.
    """

    def __init__(
        self, file: str | None, options: Mapping[str, Any], environ: Mapping[str, str], *, search: bool = True
    ) -> None:
        self._file = file
        self._options = options
        self._environ = environ
        self._search = search
        self._seen: Stamp | None = None

    def load(self) -> Loaded:
        """The configuration as it is now; raises ConfigError with every problem."""
        self._seen = self._stamp() or self._seen
        return load(self._file, self._environ, self._options, search=self._search)

    def news(self) -> Stamp | None:
        """What the file is like now, if that is not what it was when it was read last; None when it is, or is not there.

        A file that is gone or empty is about to be written: that is no news, or it would be loaded as all defaults.
        """
        stamp = self._stamp()
        return None if stamp == self._seen else stamp

    def _stamp(self) -> Stamp | None:
        path = self._seen[0] if self._seen is not None else find(self._file, self._environ, search=self._search)
        if path is None:
            return None
        try:
            status = path.stat()
        except OSError:
            return None
        if not status.st_size or not S_ISREG(status.st_mode):
            return None
        return path, status.st_ino, status.st_size, status.st_mtime_ns
