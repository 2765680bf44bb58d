from random import Random

import pytest
from tests.unit.router.support import make_call

from lexora_contract.answer import Usage
from lexora_router.call import Call
from lexora_router.telemetry.windows import LAST_MINUTE, SLICES, Windows

START = 1000.0


def finished(at: float, **changes: float) -> Call:
    """A stream of one second that ended at an instant: 0.1 s until an engine, 0.4 s until its first token."""
    call = make_call(started=at - 1.0)
    receipt = call.receipt
    receipt.dispatched_at, receipt.first_event_at, receipt.finished_at = at - 0.9, at - 0.6, at
    receipt.usage = Usage(3, 7)
    for name, value in changes.items():
        setattr(receipt, name, value)
    return call


def counts(windows: Windows, now: float) -> tuple[int, int, int]:
    """Calls of the last minute, of the last five minutes, and since the start."""
    last, five, start = windows.last(LAST_MINUTE, now), windows.last(SLICES, now), windows.since_start()
    return last.total.distribution().count, five.total.distribution().count, start.total.distribution().count


def test_each_window_has_what_ended_within_it() -> None:
    windows = Windows(START)
    windows.end(finished(START + 5), failed=False)
    assert counts(windows, START + 5) == (1, 1, 1)
    assert counts(windows, START + 59.9) == (1, 1, 1)
    assert counts(windows, START + 60) == (0, 1, 1)
    windows.end(finished(START + 200), failed=False)
    assert counts(windows, START + 299.9) == (0, 2, 2)
    assert counts(windows, START + 300) == (0, 1, 2)
    assert counts(windows, START + 500) == (0, 0, 2)


def test_a_steady_load_fills_the_windows_to_the_brim() -> None:
    windows = Windows(START)
    for second in range(1200):
        windows.end(finished(START + second), failed=False)
    assert counts(windows, START + 1199.5) == (60, 300, 1200)


@pytest.mark.parametrize("idle", [10.0, 61.0, 299.0, 301.0, 1e6])
def test_idle_time_forgets_what_is_old_and_nothing_else(idle: float) -> None:
    windows, later = Windows(START), START + 3.0 + idle
    windows.end(finished(START + 3.0), failed=False)
    windows.end(finished(later), failed=False)
    assert counts(windows, later) == (1 + (idle < 57), 1 + (idle < 297), 2)
    assert sum(each.total for each in windows.history(later)) == 1 + (idle < 297)


def test_a_clock_that_goes_back_makes_no_progress() -> None:
    windows = Windows(START)
    windows.end(finished(START + 25.0), failed=False)
    windows.end(finished(START + 5.0), failed=False)
    windows.gap(0.5, START)
    assert counts(windows, START) == (2, 2, 2)
    assert [each.total for each in windows.history(START)] == [0, 0, 2]


def test_jumps_of_any_kind_lose_no_call_and_need_no_more_memory() -> None:
    dice, windows, now, ended = Random(7), Windows(START), START, []
    for _ in range(3000):
        now += dice.choice([0.0, 0.1, 1.0, 9.9, 10.0, 45.0, 1e4]) * dice.random()
        windows.end(finished(now), failed=False)
        ended.append(now)
        begin = now // 10 * 10
        within = [sum(at >= begin - back for at in ended) for back in (50, 290)]
        assert counts(windows, now) == (*within, len(ended))
        assert len(windows._closed) < SLICES


def test_what_is_measured_of_a_call() -> None:
    windows = Windows(START)
    windows.end(finished(START), failed=False)
    windows.gap(0.02, START)
    windows.gap(0.04, START)
    told = windows.since_start()
    found = [each.distribution() for each in (told.queue, told.ttft, told.total, told.itl)]
    assert [each.mean for each in found] == pytest.approx([0.1, 0.4, 1.0, 0.03])
    assert [each.count for each in found] == [1, 1, 1, 2]


def test_a_call_that_got_nowhere_counts_in_the_total_only() -> None:
    windows = Windows(START)
    windows.end(finished(START, dispatched_at=0.0, first_event_at=0.0), failed=True)
    told = windows.since_start()
    assert [each.distribution().count for each in (told.queue, told.ttft, told.total, told.itl)] == [0, 0, 1, 0]


def test_the_first_token_of_an_answer_in_one_piece_is_none() -> None:
    windows, call = Windows(START), finished(START)
    call.stream = False
    windows.end(call, failed=False)
    assert windows.since_start().ttft.distribution().count == 0


def test_the_history_tells_slice_by_slice_from_the_start_on() -> None:
    windows = Windows(START + 4.0)
    assert [(each.begin, each.total) for each in windows.history(START + 4.0)] == [(START, 0)]
    windows.end(finished(START + 5.0), failed=False)
    windows.end(finished(START + 25.0), failed=True)
    windows.end(finished(START + 26.0), failed=False)
    told = list(windows.history(START + 31.0))
    assert [each.begin for each in told] == [START, START + 10, START + 20, START + 30]
    assert [(each.total, each.failed, each.tokens_input, each.tokens_output) for each in told] == [
        (1, 0, 3, 7),
        (0, 0, 0, 0),
        (2, 1, 6, 14),
        (0, 0, 0, 0),
    ]
    assert told[2].latencies.total.distribution().count == 2
    assert len(list(windows.history(START + 1000.0))) == SLICES
