"""Files that are read again whenever they change: opening one must not wait for whatever is in its place by then."""

import errno
import os
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file to be read. Raises OSError, also for a pipe, a device or a folder: to open a pipe would wait for a writer."""
    file = open(path, "rb", opener=_at_once)  # noqa: SIM115 - the caller closes it
    if S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
