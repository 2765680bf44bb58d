from collections import Counter
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.policy.retry_budget import RetryBudget
from lexora_router.policy.sliding_pair import SLOTS

WINDOW = 5.0


def failing_engine(budget: RetryBudget, rate: float, seconds: float, retries: int = 3) -> tuple[int, int]:
    """Calls that all fail at once and want so many retries: how many calls, and how many retries they got."""
    calls = int(rate * seconds)
    got = 0
    for i in range(calls):
        budget.deposit(i / rate)
        got += sum(budget.withdraw(i / rate) for _ in range(retries))
    return calls, got


@pytest.mark.parametrize("seconds", [1, 5, 60])
def test_an_engine_that_fails_everything_sees_at_most_the_share_more(seconds: float) -> None:
    calls, retries = failing_engine(RetryBudget(), 200, seconds)
    assert 0.19 * calls <= retries <= 0.2 * calls


def test_a_quiet_service_has_the_floor() -> None:
    calls, retries = failing_engine(RetryBudget(floor=3), 1, 60)
    assert retries == calls * 3


def test_without_any_traffic_the_floor_is_all_and_comes_back() -> None:
    budget = RetryBudget(floor=2, window=WINDOW)
    assert sum(budget.withdraw(100) for _ in range(100)) == 10
    assert budget.remaining(100) == 0
    assert sum(budget.withdraw(100 + WINDOW) for _ in range(100)) == 10


def test_no_share_and_no_floor_is_no_retry() -> None:
    budget = RetryBudget(share=0, floor=0)
    budget.deposit(0)
    assert not budget.withdraw(0)


def test_what_may_overdraw_it_is_counted_all_the_same() -> None:
    budget = RetryBudget(share=0.5, floor=0)
    for _ in range(4):
        budget.deposit(0)
    assert [budget.withdraw(0, overdraw=True) for _ in range(5)] == [True] * 5
    assert not budget.withdraw(0)
    for _ in range(8):
        budget.deposit(0)
    assert [budget.withdraw(0) for _ in range(2)] == [True, False], "six of twelve"


def test_no_share_and_no_floor_cannot_be_overdrawn() -> None:
    assert not RetryBudget(share=0, floor=0).withdraw(0, overdraw=True)


def test_shares_are_exact() -> None:
    budget = RetryBudget(share=0.29, floor=0)
    for _ in range(100):
        budget.deposit(0)
    assert sum(budget.withdraw(0) for _ in range(100)) == 29


steps = st.lists(st.tuples(st.floats(0, 2), st.integers(0, 12), st.integers(0, 12)), max_size=60)


@given(steps, st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.sampled_from([0.0, 0.4, 3.0]))
def test_over_any_window_retries_are_at_most_the_share_and_the_floor(
    traffic: list[tuple[float, int, int]], share: float, floor: float
) -> None:
    """What a retry is paid with is one window old at most, and each window has its floor once."""
    budget, now = RetryBudget(share=share, floor=floor, window=WINDOW), 0.0
    calls: Counter[int] = Counter()
    retries: Counter[int] = Counter()
    for gap, first, more in traffic:
        now += gap
        slot = int(now // (WINDOW / SLOTS))
        for _ in range(first):
            budget.deposit(now)
        calls[slot] += first
        retries[slot] += sum(budget.withdraw(now) for _ in range(more))
    for start in retries:
        for end in (slot for slot in retries if slot >= start):
            paid = share * sum(n for slot, n in calls.items() if start - SLOTS < slot <= end)
            windows = ceil((end - start + 1) / SLOTS)
            got = sum(n for slot, n in retries.items() if start <= slot <= end)
            assert got <= paid + floor * WINDOW * windows + 1e-6


@pytest.mark.parametrize("wrong", [{"share": -0.1}, {"floor": -1}, {"window": 0}])
def test_impossible_budgets_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        RetryBudget(**wrong)
