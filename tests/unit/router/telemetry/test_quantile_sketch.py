import sys
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.telemetry.quantile_sketch import ACCURACY, HIGHEST, LOWEST, Distribution, QuantileSketch

VALUES = st.lists(st.floats(LOWEST, HIGHEST), min_size=1, max_size=300)
ROUNDING = 1e-9


def sketch(*values: float) -> QuantileSketch:
    made = QuantileSketch()
    for value in values:
        made.add(value)
    return made


def exact(values: list[float], quantile: float) -> float:
    """The smallest value that so many of them are not above."""
    return sorted(values)[ceil(len(values) * quantile) - 1]


@given(VALUES)
def test_quantiles_are_as_close_to_the_exact_ones_as_is_said(values: list[float]) -> None:
    found = sketch(*values).distribution()
    assert found.count == len(values)
    assert found.mean == pytest.approx(sum(values) / len(values))
    for told, quantile in ((found.p50, 0.5), (found.p90, 0.9), (found.p99, 0.99)):
        assert told == pytest.approx(exact(values, quantile), rel=ACCURACY + ROUNDING)


@given(VALUES, VALUES, VALUES)
def test_merged_is_the_same_as_counted_together(first: list[float], second: list[float], third: list[float]) -> None:
    merged = sketch(*first)
    merged.merge([sketch(*second), QuantileSketch(), sketch(*third)])
    together = sketch(*first, *second, *third).distribution()
    found = merged.distribution()
    assert (found.count, found.p50, found.p90, found.p99) == (together.count, together.p50, together.p90, together.p99)
    assert found.mean == pytest.approx(together.mean)


def test_what_was_merged_stays_as_it_was() -> None:
    other = sketch(1.0)
    mine = sketch(2.0)
    mine.merge([other])
    mine.add(3.0)
    assert other.distribution().count == 1


def test_nothing_is_zero() -> None:
    assert QuantileSketch().distribution() == Distribution(0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(("value", "told"), [(0.0, LOWEST), (LOWEST / 2, LOWEST), (-1.0, LOWEST), (1e9, HIGHEST)])
def test_beyond_its_bounds_it_tells_the_bound(value: float, told: float) -> None:
    found = sketch(value).distribution()
    assert (found.count, found.p50, found.p99) == (1, told, told)
    assert found.mean == value


def test_memory_does_not_grow() -> None:
    made = sketch(1.0)
    counts = made.counts
    before = len(counts), sys.getsizeof(counts)
    for step in range(20_000):
        made.add(1.001**step * LOWEST)
    assert (len(made.counts), sys.getsizeof(made.counts)) == before
    assert len(counts) < 256
