from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.policy.drain_rate import DrainRate

seconds = st.floats(0, 1e4)


def measured(*held: float) -> DrainRate:
    rate = DrainRate()
    for one in held:
        rate.finished(one, 0.0)
    return rate


def test_nothing_is_known_at_the_start() -> None:
    rate = DrainRate()
    assert rate.wait(10, 4, 0.0) is None
    assert rate.retry_after(10, 4, 0.0) == 1


def test_one_finished_call_is_enough_for_an_estimate() -> None:
    rate = measured(8.0)
    assert rate.wait(0, 4, 0.0) == 2.0
    assert rate.wait(9, 4, 0.0) == 20.0
    assert rate.retry_after(9, 4, 0.0) == 20


def test_the_first_call_of_a_full_pool_to_finish_does_not_make_it_look_slow() -> None:
    """64 slots filled at once, calls of about 10 s: after the first finish, 10 ahead wait 1.7 s, not 110."""
    rate = DrainRate()
    rate.waiting(0.0)
    rate.finished(9.5, 9.5)
    wait = rate.wait(10, 64, 9.5)
    assert wait == pytest.approx(1.63, abs=0.01)


def test_the_mean_of_the_first_calls_is_the_plain_one() -> None:
    assert measured(1.0, 2.0, 6.0).mean_held(0.0) == pytest.approx(3.0)


def test_a_change_is_followed_within_a_few_hundred_calls() -> None:
    rate = measured(*[1.0] * 1000, *[5.0] * 200)
    assert rate.mean_held(0.0) == pytest.approx(5.0, rel=0.05)


def test_an_hour_of_quiet_changes_nothing() -> None:
    rate = measured(2.0, 2.0)
    assert rate.wait(3, 4, 3600.0) == 2.0
    rate.waiting(3600.0)
    assert rate.wait(3, 4, 3600.5) == 2.0


def test_while_calls_wait_and_nothing_finishes_the_estimate_grows() -> None:
    rate = measured(2.0)
    rate.waiting(100.0)
    rate.waiting(105.0)
    assert rate.wait(0, 1, 101.0) == 2.0
    assert rate.wait(0, 1, 130.0) == 30.0
    rate.finished(2.0, 130.0)
    assert rate.wait(0, 1, 130.0) == 2.0
    rate.drained()
    assert rate.wait(0, 1, 500.0) == 2.0


def test_a_pool_that_never_finished_a_call_is_judged_by_its_silence() -> None:
    rate = DrainRate()
    rate.waiting(0.0)
    assert rate.wait(3, 2, 0.0) is None
    assert rate.wait(3, 2, 10.0) == 20.0


def test_without_slots_the_wait_is_endless_and_the_hint_is_bounded() -> None:
    rate = measured(2.0)
    assert rate.wait(0, 0, 0.0) == inf
    assert rate.retry_after(0, 0, 0.0) == 300
    assert rate.retry_after(10**9, 1, 0.0, longest=60) == 60


@given(st.lists(seconds, max_size=30), st.integers(0, 10_000), st.integers(0, 512), seconds)
def test_hints_are_whole_seconds_from_one_to_the_bound(held: list[float], ahead: int, slots: int, now: float) -> None:
    rate = measured(*held)
    rate.waiting(0.0)
    hint = rate.retry_after(ahead, slots, now, longest=120)
    assert isinstance(hint, int)
    assert 1 <= hint <= 120


@given(st.lists(seconds, min_size=1, max_size=100))
def test_the_mean_lies_among_what_was_measured(held: list[float]) -> None:
    mean = measured(*held).mean_held(0.0)
    assert mean is not None
    assert min(held) - 1e-6 <= mean <= max(held) + 1e-6


@given(st.lists(seconds, min_size=1, max_size=20), st.integers(0, 1000), st.integers(1, 100))
def test_more_ahead_wait_longer_and_more_slots_shorter(held: list[float], ahead: int, slots: int) -> None:
    rate = measured(*held)
    here, behind, with_more = rate.wait(ahead, slots, 0.0), rate.wait(ahead + 1, slots, 0.0), rate.wait(ahead, slots + 1, 0.0)
    assert here is not None
    assert behind is not None
    assert with_more is not None
    assert with_more <= here <= behind


def test_the_estimate_meets_a_simulated_queue() -> None:
    """4 slots, calls of 1 to 3 s, 100 waiting from the start: what the 81st was told is within 15 % of its wait."""
    rate = DrainRate()
    rate.waiting(0.0)
    free = [0.0] * 4
    now = 0.0
    dispatched: list[float] = []
    for index in range(100):
        slot = min(range(4), key=free.__getitem__)
        now = free[slot]
        held = 1.0 + (index * 7 % 21) / 10
        dispatched.append(now)
        free[slot] = now + held
        rate.finished(held, now)
    told = rate.wait(80, 4, 0.0)
    assert told == pytest.approx(dispatched[80], rel=0.15)
