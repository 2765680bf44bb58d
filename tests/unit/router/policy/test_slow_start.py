import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.policy.slow_start import SlowStart

starts = st.builds(SlowStart, st.floats(0, 600), st.floats(0.1, 10), st.floats(0.01, 1))
ages = st.floats(-1, 1000)


@pytest.mark.parametrize(
    ("aggression", "age", "weight"),
    [(1, 0, 0.1), (1, 1.5, 0.1), (1, 15, 0.5), (1, 30, 1), (1, 99, 1), (2, 7.5, 0.5), (0.5, 15, 0.25)],
)
def test_the_weight_grows_to_one(aggression: float, age: float, weight: float) -> None:
    assert SlowStart(30, aggression, 0.1).weight(1000, 1000 + age) == pytest.approx(weight)


@given(starts, ages, ages)
def test_it_stays_in_range_and_never_falls(start: SlowStart, a: float, b: float) -> None:
    early, late = (start.weight(0, age) for age in sorted((a, b)))
    assert start.minimum <= early <= late <= 1


def test_who_was_never_away_and_who_has_no_window_are_whole() -> None:
    assert SlowStart().weight(None, 5) == 1
    assert SlowStart(window=0).weight(5, 5) == 1


@pytest.mark.parametrize("wrong", [{"minimum": 0}, {"minimum": 1.1}, {"aggression": 0}, {"window": -1}])
def test_impossible_ones_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="slow start"):
        SlowStart(**wrong)
