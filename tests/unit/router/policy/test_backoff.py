import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.policy.backoff import Backoff

backoffs = st.builds(Backoff, st.floats(0, 100), st.floats(1, 100), st.floats(0, 1000))
chances = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(("n", "seconds"), [(0, 1), (1, 2), (2, 4), (4, 16), (5, 30), (50, 30), (10**6, 30)])
def test_the_ceiling_doubles_up_to_the_bound(n: int, seconds: float) -> None:
    assert Backoff(1, 2, 30).ceiling(n) == seconds


@given(backoffs, st.integers(0, 10**6), chances)
def test_a_delay_is_between_nothing_and_the_ceiling(backoff: Backoff, n: int, random: float) -> None:
    assert 0 <= backoff.delay(n, random) <= backoff.ceiling(n) <= backoff.max_delay


@given(backoffs, st.integers(0, 1000))
def test_later_ceilings_are_never_shorter(backoff: Backoff, n: int) -> None:
    assert backoff.ceiling(n) <= backoff.ceiling(n + 1)


def test_jitter_is_full() -> None:
    backoff = Backoff(1, 2, 30)
    assert [backoff.delay(3, random) for random in (0, 0.25, 0.5)] == [0, 2, 4]
