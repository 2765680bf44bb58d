from lexora_router.call import Outcome
from lexora_router.fleet.counters import WAIT_BOUNDS, Histogram, Tally


def test_values_are_counted_up_to_their_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5, 99.0):
        histogram.add(value)
    assert histogram.cumulative() == [("1.0", 2.0), ("2.0", 4.0), ("+Inf", 6.0)]
    assert histogram.total == 106.5


def test_a_tally_begins_at_zero_for_every_outcome() -> None:
    tally = Tally()
    assert tally.attempts == dict.fromkeys(Outcome, 0)
    assert tally.waits.cumulative()[-1] == ("+Inf", 0.0)
    assert list(WAIT_BOUNDS) == sorted(WAIT_BOUNDS)
