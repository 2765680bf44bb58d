"""What the process holds: garbage is collected seldom while it serves, and memory goes back to the system after a peak.

An allocator keeps what a crowd of calls has left, for the next crowd. It is asked to give it back when the crowd is gone for
some seconds, not before: pages that are given back and taken again cost more than keeping them.
"""

import asyncio
import ctypes
import gc
import resource
from collections.abc import Callable
from pathlib import Path

import structlog

YOUNG_OBJECTS = 20_000
LOOK_SECONDS = 1.0
# So many looks in a row must find it quiet, which is: an eighth of the most calls that were seen.
QUIET_LOOKS = 5
QUIET_SHARE = 8
# Less than this is no peak.
WORTH_BYTES = 16 * 2**20

_STATM = Path("/proc/self/statm")
_PAGE = resource.getpagesize()

_log = structlog.get_logger("lexora.memory")


def settle_garbage_collector() -> None:
    """Leave what lives as long as the process out of every collection, and collect the young less often.

    At the default threshold of 700 objects a call pays for a collection of its own, a tenth of its CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)


class AfterPeak:
    """Tells when there is something to give back: the calls are gone for a while, and the memory is not.

    Sizes are bytes in memory, of which the process had so many at first.
    """

    def __init__(self, size: int) -> None:
        self._least = size
        self._most_calls = 0
        self._quiet = 0  # looks in a row

    def due(self, calls: int, size: int) -> bool:
        """One look: calls under way, and the size."""
        self._least = min(self._least, size)
        self._most_calls = max(self._most_calls, calls)
        self._quiet = self._quiet + 1 if calls <= self._most_calls // QUIET_SHARE else 0
        return self._quiet >= QUIET_LOOKS and size >= self._least + WORTH_BYTES

    def given_back(self, calls: int, size: int) -> None:
        """What is left now is no peak: the next one is waited for."""
        self._least, self._most_calls, self._quiet = size, calls, 0


async def give_back_after_peaks(calls: Callable[[], int]) -> None:
    """Give memory back after each peak of `calls` under way, until cancelled. Returns at once where there is no glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return
    peak = AfterPeak(_size())
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        before = _size()
        if peak.due(calls(), before):
            gc.collect()  # one object that waits for its collection, or for its next use, keeps a megabyte in place
            await asyncio.to_thread(trim, 0)
            after = _size()
            peak.given_back(calls(), after)
            _log.info("memory_given_back", before_mib=before // 2**20, after_mib=after // 2**20)


def _size() -> int:
    """Bytes of this process in memory."""
    return int(_STATM.read_text().split()[1]) * _PAGE
