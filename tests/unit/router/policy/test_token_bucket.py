from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.policy.token_bucket import SLACK, TokenBucket

rates = st.floats(0.01, 1000)
bursts = st.integers(1, 100)
gaps = st.lists(st.floats(0, 5), min_size=1, max_size=80)
starts = st.floats(0, 1e6)


@given(rates, bursts, gaps, starts)
def test_over_any_interval_no_more_than_burst_and_rate_allow(rate: float, burst: int, waits: list[float], now: float) -> None:
    bucket = TokenBucket(rate, burst, now)
    taken: list[float] = []
    for wait in waits:
        now += wait
        for _ in range(3):
            if bucket.take(1, now):
                taken.append(now)
    for i, since in enumerate(taken):
        for j in range(i, len(taken)):
            assert j - i + 1 <= burst + rate * (taken[j] - since) + 1e-3


@given(rates, bursts, gaps, starts)
def test_under_saturation_nothing_of_the_rate_is_lost(rate: float, burst: int, waits: list[float], start: float) -> None:
    bucket = TokenBucket(rate, burst, start)
    now, admitted, possible = start, 0, float(burst)
    while bucket.take(1, now):
        admitted += 1
    for wait in waits:
        now += min(wait, burst / rate / 2)  # a longer gap would leave the bucket full, and the user not saturating
        possible = burst + rate * (now - start)
        while bucket.take(1, now):
            admitted += 1
    assert possible - 1 - 1e-3 <= admitted <= possible + 1e-3


def test_four_times_the_rate_gets_exactly_the_rate() -> None:
    bucket = TokenBucket(10, 20, 0)
    assert sum(bucket.take(1, i / 40) for i in range(1000)) == 20 + int(10 * 999 / 40)


@given(rates, bursts, st.lists(st.floats(0.1, 150), max_size=10), st.floats(0.1, 150))
def test_a_wait_is_long_enough_and_not_too_long(rate: float, burst: int, spent: list[float], n: float) -> None:
    bucket = TokenBucket(rate, burst, 0)
    for part in spent:
        bucket.take(part, 0)
    wait = bucket.wait(n, 0)
    if n > burst:
        assert wait == inf
        return
    if wait > 0:
        assert not TokenBucket.take(bucket, n, wait * 0.999 - 2 * SLACK / rate)
    assert bucket.take(n, wait)


reservations = st.lists(st.tuples(st.floats(0, 3), st.floats(0, 60), st.floats(0, 1)), max_size=40)


@given(rates, bursts, reservations)
def test_with_honest_estimates_the_debt_is_at_most_one_reservation(
    rate: float, burst: int, calls: list[tuple[float, float, float]]
) -> None:
    bucket, now, largest = TokenBucket(rate, burst, 0), 0.0, 0.0
    under_way: list[tuple[float, float]] = []
    for gap, n, used in calls:
        now += gap
        if bucket.take(n, now):
            under_way.append((n, n * used))
            largest = max(largest, n)
        if len(under_way) > 2:
            bucket.settle(*under_way.pop(0), now)
        assert -largest - 2 * SLACK <= bucket.balance(now) <= burst


@given(rates, bursts, st.floats(0, 100), st.floats(0, 100), st.floats(0, 1000))
def test_what_comes_back_never_fills_above_the_burst(
    rate: float, burst: int, reserved: float, actual: float, after: float
) -> None:
    bucket = TokenBucket(rate, burst, 0)
    if bucket.take(reserved, 0):
        bucket.settle(reserved, actual, after)
    assert bucket.balance(after) <= burst


def test_an_excess_becomes_a_debt_that_the_rate_pays_off() -> None:
    bucket = TokenBucket(10, 100, 0)
    assert bucket.take(90, 0)
    bucket.settle(90, 150, 0)
    assert bucket.balance(0) == -50
    assert not bucket.take(1, 5)
    assert bucket.wait(1, 5) == pytest.approx(0.1)


def test_other_limits_are_no_gift() -> None:
    bucket = TokenBucket(1, 10, 0)
    bucket.take(10, 0)
    bucket.adjust(5, 100, 2)
    assert bucket.balance(2) == 2
    assert bucket.balance(3) == 7
    bucket.adjust(5, 4, 3)
    assert bucket.balance(3) == 4
    assert bucket.full(3)


def test_a_clock_that_goes_back_counts_as_none() -> None:
    bucket = TokenBucket(1, 10, 100)
    bucket.take(10, 100)
    assert bucket.balance(50) == 0
    assert bucket.balance(101) == 1


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (1, 0), (-1, 1), (inf, 1), (1, inf), (float("nan"), 1)])
def test_impossible_limits_are_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        TokenBucket(rate, burst, 0)
