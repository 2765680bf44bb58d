"""Guesses of one address cost it its time, and no other address anything."""

from hypothesis import given
from hypothesis import strategies as st

from lexora_router.policy.failed_attempts import FailedAttempts

STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5)), max_size=200)


@given(STEPS, st.floats(0.1, 10), st.integers(1, 30))
def test_over_any_time_an_address_fails_no_more_than_burst_and_rate(
    steps: list[tuple[str, float]], rate: float, burst: int
) -> None:
    attempts, now = FailedAttempts(rate=rate, burst=burst), 0.0
    allowed: dict[str, list[float]] = {}
    for address, seconds in steps:
        now += seconds
        wait = attempts.failed(address, now)
        assert wait >= 0
        assert wait <= 1 / rate + 1e-6
        if not wait:
            allowed.setdefault(address, []).append(now)
    for times in allowed.values():
        for first in range(len(times)):
            for last in range(first, len(times)):
                assert last - first + 1 <= burst + rate * (times[last] - times[first]) + 1e-3


@given(STEPS)
def test_an_address_has_the_same_answers_whatever_others_do(steps: list[tuple[str, float]]) -> None:
    crowd, alone, now = FailedAttempts(burst=3), FailedAttempts(burst=3), 0.0
    for address, seconds in steps:
        now += seconds
        found = crowd.failed(address, now)
        if address == "a":
            assert found == alone.failed("a", now)


def test_addresses_are_bounded() -> None:
    attempts = FailedAttempts(most=10)
    for number in range(1000):
        assert attempts.failed(str(number), 0.0) == 0.0
    assert len(attempts) == 10
