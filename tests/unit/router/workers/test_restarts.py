from lexora_router.workers.restarts import FIRST_DELAY, LONGEST_DELAY, MOST_FAILURES, WELL_SECONDS, Failures, Restarts


def test_the_first_death_costs_no_time_and_further_ones_more_and_more() -> None:
    restarts = Restarts()
    found = [restarts.delay(1.0) for _ in range(2000)]
    assert found[:4] == [0.0, FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY]
    assert found == sorted(found)
    assert found[-1] == LONGEST_DELAY


def test_a_worker_that_has_lived_well_is_started_at_once_again() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts.delay(0.1)
    assert restarts.delay(WELL_SECONDS) == 0.0
    assert restarts.delay(0.1) == 0.0
    assert restarts.delay(0.1) == FIRST_DELAY


def test_starts_are_given_up_when_none_serves() -> None:
    failures = Failures()
    assert [failures.failed() for _ in range(MOST_FAILURES)] == [False] * (MOST_FAILURES - 1) + [True]
    failures.served()
    assert not failures.failed()
