import asyncio
import ctypes
import gc
from types import SimpleNamespace

import pytest
from tests.support.clock import jumping

from lexora_router.process import process_memory as memory
from lexora_router.process.process_memory import QUIET_LOOKS, QUIET_SHARE, WORTH_BYTES, AfterPeak, give_back_after_peaks

START = 80 * 2**20
FULL = START + WORTH_BYTES
CROWD = 100 * QUIET_SHARE


def crowd() -> AfterPeak:
    """There is one, and it has made the process grow."""
    peak = AfterPeak(START)
    assert not peak.due(CROWD, 0, FULL)
    return peak


def looks(peak: AfterPeak, count: int, calls: int = 0, held: int = 0, size: int = FULL) -> list[bool]:
    return [peak.due(calls, held, size) for _ in range(count)]


def test_memory_is_given_back_when_the_crowd_is_gone_for_some_looks() -> None:
    assert looks(crowd(), QUIET_LOOKS, calls=CROWD // QUIET_SHARE) == [False] * (QUIET_LOOKS - 1) + [True]


def test_a_lull_is_not_the_end_of_a_crowd() -> None:
    peak = crowd()
    for _ in range(3):
        assert not any(looks(peak, QUIET_LOOKS - 1))
        assert not peak.due(CROWD, 0, FULL)


def test_calls_that_stay_are_no_end_either() -> None:
    assert not any(looks(crowd(), 100, calls=CROWD // QUIET_SHARE + 1))


def test_little_growth_is_left_alone() -> None:
    assert not any(looks(crowd(), 100, size=FULL - 1))


def test_growth_counts_from_the_least_that_was_seen() -> None:
    peak = crowd()
    peak.due(0, 0, START - 2**20)
    assert any(looks(peak, QUIET_LOOKS, size=FULL - 1))


def test_what_is_left_afterwards_is_not_tried_again_before_the_next_peak() -> None:
    peak = crowd()
    assert any(looks(peak, QUIET_LOOKS))
    peak.given_back(0, 0, FULL)
    assert not any(looks(peak, 100))
    assert not peak.due(CROWD, 0, FULL + WORTH_BYTES)
    assert any(looks(peak, QUIET_LOOKS, size=FULL + WORTH_BYTES))


BODIES = 2**30


def test_bodies_that_no_call_has_yet_are_nothing_to_give_back() -> None:
    peak = AfterPeak(START)
    assert not any(looks(peak, 100, held=BODIES, size=START + BODIES))
    assert any(looks(peak, QUIET_LOOKS, size=START + BODIES))


def test_what_bodies_held_during_the_trim_is_not_taken_for_the_least() -> None:
    peak = crowd()
    assert any(looks(peak, QUIET_LOOKS, held=BODIES, size=FULL + BODIES))
    peak.given_back(0, BODIES, START + BODIES)
    assert not any(looks(peak, 100, held=BODIES, size=START + BODIES))
    assert any(looks(peak, QUIET_LOOKS, size=START + BODIES))


def test_a_burst_of_bytes_is_over_although_as_many_calls_go_on() -> None:
    peak = AfterPeak(START)
    assert not any(looks(peak, 100, CROWD, BODIES, START + BODIES))
    assert any(looks(peak, QUIET_LOOKS, CROWD, BODIES // QUIET_SHARE, START + BODIES))


@jumping
async def test_garbage_is_collected_and_the_allocator_asked() -> None:
    calls, sizes, asked = CROWD, [START], []

    class Garbage:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            asked.append("collected")

    def trim(keep: int) -> None:
        asked.append(f"trim {keep}")
        sizes.append(START)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "_size", lambda: sizes[-1])
        patch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(malloc_trim=trim))
        patch.setattr(asyncio, "to_thread", at_once)
        task = asyncio.create_task(give_back_after_peaks(lambda: calls, lambda: 0))
        await asyncio.sleep(100)
        Garbage()
        sizes.append(FULL)
        await asyncio.sleep(100)
        assert not asked
        calls = 0
        await asyncio.sleep(100)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert asked == ["collected", "trim 0"]


async def at_once(what, *arguments):  # type: ignore[no-untyped-def]
    """In place of a thread, which the jumping clock would not wait for."""
    return what(*arguments)


async def test_another_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    async with asyncio.timeout(1):
        await give_back_after_peaks(lambda: 0, lambda: 0)


def test_the_collector_is_settled() -> None:
    thresholds = gc.get_threshold()
    try:
        memory.settle_garbage_collector()
        assert gc.get_threshold()[0] == memory.YOUNG_OBJECTS
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
