import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.policy.sliding_pair import SLOTS, SlidingPair

steps = st.lists(st.tuples(st.floats(0, 12), st.integers(0, 5), st.integers(0, 5)), max_size=60)


@given(steps, st.floats(0.5, 30), st.floats(0, 1e6))
def test_the_totals_are_those_of_the_latest_slots(adds: list[tuple[float, int, int]], window: float, now: float) -> None:
    pair, width = SlidingPair(window), window / SLOTS
    seen: list[tuple[int, int, int]] = []
    for gap, first, second in adds:
        now += gap
        pair.add(now, first, second)
        current = int(now // width)
        seen.append((current, first, second))
        live = [(a, b) for slot, a, b in seen if slot > current - SLOTS]
        assert pair.totals(now) == (sum(a for a, _ in live), sum(b for _, b in live))


def test_it_covers_the_window_and_then_forgets() -> None:
    pair = SlidingPair(10)
    pair.add(100.5, 3, 1)
    assert pair.totals(109.9) == (3, 1)
    assert pair.totals(110.0) == (0, 0)


def test_a_clock_that_goes_back_loses_nothing() -> None:
    pair = SlidingPair(10)
    pair.add(100, 1, 0)
    pair.add(50, 1, 0)
    assert pair.totals(101) == (2, 0)


@pytest.mark.parametrize("window", [0, -1, float("inf"), float("nan")])
def test_a_window_of_no_length_is_refused(window: float) -> None:
    with pytest.raises(ValueError, match="window"):
        SlidingPair(window)


@given(st.floats(0, 30), st.integers(0, 3), st.integers(0, 3))
def test_what_is_taken_back_is_as_if_it_had_never_been_added(later: float, first: int, second: int) -> None:
    pair, without = SlidingPair(10.0), SlidingPair(10.0)
    for one in (pair, without):
        one.add(1000.0, 2, 2)
    pair.add(1000.0, first, second)
    for one in (pair, without):
        one.add(1000.0 + later, 1, 1)
    pair.take_back(1000.0, first, second)
    assert pair.totals(1000.0 + later) == without.totals(1000.0 + later)
    assert pair.totals(1020.0 + later) == (0, 0)


def test_no_more_is_taken_back_than_there_is() -> None:
    pair = SlidingPair(10.0)
    pair.add(100.0, 1, 0)
    pair.take_back(100.0, 5, 5)
    pair.take_back(109.0, 1, 1)
    assert pair.totals(100.0) == (0, 0)
