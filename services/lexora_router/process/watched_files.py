"""Files that are replaced while the process runs: whether there is something new in them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

# Files that have just been changed may still be written, and the key comes after the certificate.
SETTLE_SECONDS = 0.2

Stamp = tuple[tuple[int, int, int], ...] | None


class WatchedFiles:
    """Some files that belong together. Made before they are read, so that no change is missed."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = files
        self._seen = self._stamp()

    async def changed(self) -> bool:
        """Whether they are others than at the last answer of True, and have been left alone since."""
        stamp = await asyncio.to_thread(self._stamp)
        if stamp is None or stamp == self._seen:
            return False
        await asyncio.sleep(SETTLE_SECONDS)
        if await asyncio.to_thread(self._stamp) != stamp:
            return False  # still being written: the next look finds it
        self._seen = stamp
        return True

    def _stamp(self) -> Stamp:
        """What the files are like; None while one is gone, since it is about to be replaced."""
        try:
            found = [Path(file).stat() for file in self._files]
        except OSError:
            return None
        return tuple((status.st_ino, status.st_size, status.st_mtime_ns) for status in found)
