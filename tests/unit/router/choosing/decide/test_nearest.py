import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.choosing.decide.nearest import nearer, unit, verdict

A, B, HALF = (1.0, 0.0), (0.0, 1.0), unit([1.0, 1.0])


def best(*examples: tuple[str, tuple[float, ...]], task: tuple[float, ...] = A) -> dict[str, float]:
    found: dict[str, float] = {}
    nearer(found, examples, task)
    return found


def test_the_nearest_example_decides() -> None:
    label = verdict(best(("code", B), ("code", A), ("general", HALF)), 0.5)
    assert label is not None
    assert (label.task_type, label.by) == ("code", "embedding")
    assert label.confidence > 0.99
    assert "1.00" in label.reasoning


def test_two_that_are_equally_near_are_half_sure_each() -> None:
    label = verdict(best(("a", A), ("b", A)), 0.5)
    assert label is not None
    assert label.confidence == pytest.approx(0.5)


def test_nothing_near_is_an_abstention() -> None:
    assert verdict(best(("code", B)), 0.5) is None
    assert verdict(best(("code", HALF)), 0.71) is None
    assert verdict({}, 0.0) is None


def test_slices_come_to_the_same_as_the_whole() -> None:
    found: dict[str, float] = {}
    for example in (("a", HALF), ("a", A), ("b", B)):
        nearer(found, [example], A)
    assert found == best(("a", HALF), ("a", A), ("b", B))


@pytest.mark.parametrize("numbers", [[], [0.0], [math.inf], [math.nan, 1.0], [1e308, 1e308]])
def test_what_has_no_direction_is_refused(numbers: list[float]) -> None:
    with pytest.raises(ValueError, match="direction"):
        unit(numbers)


@given(st.dictionaries(st.text(), st.floats(-1, 1), min_size=1))
def test_confidence_is_a_share(found: dict[str, float]) -> None:
    label = verdict(found, -1.0)
    assert label is not None
    assert 1 / len(found) - 1e-9 <= label.confidence <= 1
