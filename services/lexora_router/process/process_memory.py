"""What the process holds: garbage is collected seldom while it serves, and memory goes back to the system after a peak.

An allocator keeps what a crowd of calls has left, for the next crowd. It is asked to give it back when the crowd is gone for
some seconds, not before: pages that are given back and taken again cost more than keeping them. Large bodies need no asking:
each has pages of its own, which go back with it.
"""

import asyncio
import contextlib
import ctypes
import gc
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

YOUNG_OBJECTS = 60_000
LOOK_SECONDS = 1.0
# So many looks in a row must find it quiet: an eighth of the most calls that were seen, or of the most bytes in bodies. By then
# the connections to engines that a crowd has left, which are kept for four to eight seconds, are gone too.
QUIET_LOOKS = 10
QUIET_SHARE = 8
# Less than this is no peak.
WORTH_BYTES = 16 * 2**20
# From here on a block of memory is mapped by itself. glibc would raise its own bound, 128 KiB, with each block that is freed,
# up to 32 MiB: then the bodies of a burst lie in its heap, where one small block above them keeps them.
MAPPED_BYTES = 256 * 1024
# The heap may keep so much that is free at its end, and grows in such steps. A read is a block of up to 250 KiB, which would be
# given back and taken again each time otherwise: a third of what a body of a megabyte costs.
KEPT_BYTES = 8 * 2**20
STEP_BYTES = 2**20
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # mallopt(3)

_STATM = Path("/proc/self/statm")
_PAGE = resource.getpagesize()

_log = structlog.get_logger("lexora.memory")


@contextlib.contextmanager
def kept_low(calls: Callable[[], int], held: Callable[[], int]) -> Iterator[None]:
    """Settle the process for serving, and give memory back after each peak inside; to be entered in the event loop.

    `calls` are those under way, `held` the bytes of the bodies that are being read or wait.
    """
    settle_garbage_collector()
    _settle_allocator()
    task = asyncio.create_task(give_back_after_peaks(calls, held), name="lexora-memory")
    try:
        yield
    finally:
        task.cancel()


def settle_garbage_collector() -> None:
    """Leave what lives as long as the process out of every collection, and collect the young less often.

    At the default threshold of 700 objects a call pays for a collection of its own, a tenth of its CPU. 200 open streams have
    20,000; one collection of so many takes some ms, in which every stream waits. Calls leave no cycles, so there is little to
    collect.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)


class AfterPeak:
    """Decides when there is something to give back: the load is gone for a while, and the memory is not.

    Sizes are bytes in memory, of which the process had so many at first. What bodies hold is no part of what could be given
    back, nor of what the process has had at least: else the size at a peak would be taken for the least there can be.
    """

    def __init__(self, size: int) -> None:
        self._least = size
        self._most_calls = 0
        self._most_held = 0
        self._quiet = 0  # looks in a row

    def due(self, calls: int, held: int, size: int) -> bool:
        """One look: calls under way, bytes in bodies, and the size."""
        self._least = min(self._least, size - held)
        self._most_calls = max(self._most_calls, calls)
        self._most_held = max(self._most_held, held)
        few_calls = calls <= self._most_calls // QUIET_SHARE
        few_bytes = self._most_held >= WORTH_BYTES and held <= self._most_held // QUIET_SHARE
        self._quiet = self._quiet + 1 if few_calls or few_bytes else 0
        return self._quiet >= QUIET_LOOKS and size - held >= self._least + WORTH_BYTES

    def given_back(self, calls: int, held: int, size: int) -> None:
        """What is left now is no peak: the next one is waited for."""
        self._least, self._most_calls, self._most_held, self._quiet = size - held, calls, held, 0


async def give_back_after_peaks(calls: Callable[[], int], held: Callable[[], int]) -> None:
    """Give memory back after each peak, until cancelled; see `kept_low`. Returns at once where there is no glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return
    peak = AfterPeak(_size())
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        before = _size()
        if peak.due(calls(), held(), before):
            gc.collect()  # one object that waits for its collection, or for its next use, keeps a megabyte in place
            await asyncio.to_thread(trim, 0)
            after = _size()
            peak.given_back(calls(), held(), after)
            _log.info("memory_given_back", before_mib=before // 2**20, after_mib=after // 2**20)


def _settle_allocator() -> None:
    """Without glibc nothing is changed."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TOP_PAD, STEP_BYTES)


def _size() -> int:
    """Bytes of this process in memory."""
    return int(_STATM.read_text().split()[1]) * _PAGE
