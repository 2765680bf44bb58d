from dataclasses import replace

import pytest

from lexora_router.call import Outcome
from lexora_router.fleet.endpoint_health import Condition, HealthRules
from lexora_router.policy.breaker import BreakerRules, State
from lexora_router.policy.ejection import Signals
from lexora_router.policy.evidence import RequestSource
from lexora_router.policy.slow_start import SlowStart

RULES = HealthRules(
    BreakerRules(consecutive_failures=3, min_volume=100, window=10.0, open_time=5.0, max_open_time=20.0),
    SlowStart(window=10.0, minimum=0.1),
)
GOOD, FAULT, BUSY, NEUTRAL = Outcome.GOOD, Outcome.FAULT, Outcome.BUSY, Outcome.NEUTRAL


def ended(condition: Condition, now: float, *outcomes: Outcome) -> None:
    for outcome in outcomes:
        condition.ended(condition.begin(now), outcome, now)


def opened(now: float = 0.0) -> Condition:
    condition = Condition(RULES)
    ended(condition, now, FAULT, FAULT, FAULT)
    return condition


def test_a_new_endpoint_is_unknown_and_takes_its_share() -> None:
    condition = Condition(RULES)
    assert (condition.healthy, condition.reason, condition.in_flight) == (None, "", 0)
    assert condition.available(0.0)
    assert condition.may_serve(0.0)
    assert condition.weight(0.0) == 1.0
    assert condition.breaker_state(0.0) is State.CLOSED
    assert condition.signals(0.0) == Signals()


@pytest.mark.parametrize(
    ("outcomes", "sound"),
    [
        ((), True),
        ((NEUTRAL,) * 5, True),
        ((FAULT,), False),
        ((BUSY,), False),
        ((GOOD,) * 9 + (FAULT,), True),
        ((GOOD,) * 9 + (BUSY,), True),
        ((GOOD,) * 9 + (FAULT, BUSY), False),
    ],
)
def test_sound_is_who_answers_nearly_all(outcomes: tuple[Outcome, ...], sound: bool) -> None:
    condition = Condition(RULES)
    ended(condition, 0.0, *outcomes)
    assert condition.sound(0.0) == sound
    assert condition.sound(RULES.breaker.window + 1.0), "what is long ago says nothing"


def test_who_is_to_be_tried_again_is_as_sound_as_others_or_it_might_never_be() -> None:
    condition = opened()
    assert (condition.available(5.0), condition.sound(5.0)) == (True, True)


def test_who_fails_probes_is_not_sound() -> None:
    condition = Condition(RULES)
    condition.probed("", 7.0, sure=False)
    condition.probed("slow", 8.0, sure=False)
    assert (condition.available(8.0), condition.sound(8.0)) == (True, False)


# -- probes


def test_a_probe_that_fails_takes_it_out_but_is_a_guess() -> None:
    condition = Condition(RULES)
    condition.found(healthy=False, reason="the probe failed", now=1.0)
    assert (condition.healthy, condition.reason) == (False, "the probe failed")
    assert not condition.available(1.0)
    assert condition.may_serve(1.0)


def test_a_probe_that_answers_again_brings_it_back_slowly() -> None:
    condition = Condition(RULES)
    condition.found(healthy=False, reason="down", now=0.0)
    condition.found(healthy=True, reason="", now=100.0)
    assert condition.available(100.0)
    assert condition.reason == ""
    assert condition.weight(100.0) == 0.1
    assert condition.weight(105.0) == 0.5
    assert condition.weight(110.0) == 1.0
    condition.found(healthy=True, reason="", now=120.0)
    assert condition.weight(120.0) == 1.0


def test_the_first_probe_is_no_recovery() -> None:
    condition = Condition(RULES)
    condition.found(healthy=True, reason="", now=100.0)
    assert condition.weight(100.0) == 1.0


def test_an_endpoint_that_was_well_is_out_after_some_failed_probes_in_a_row() -> None:
    condition = Condition(replace(RULES, failed_probes=3))
    condition.probed("", 0.0, sure=False)
    for reason in ["slow", "slow", "", "slow", "slow"]:
        condition.probed(reason, 1.0, sure=False)
        assert (condition.available(1.0), condition.reason, condition.doubtful) == (True, "", bool(reason))
    condition.probed("dead", 1.0, sure=False)
    assert (condition.available(1.0), condition.reason, condition.doubtful) == (False, "dead", False)
    condition.probed("", 2.0, sure=False)
    assert condition.available(2.0), "one good probe brings it back"
    assert condition.weight(2.0) == 0.1, "slowly"


def test_a_probe_that_is_sure_needs_no_second() -> None:
    condition = Condition(RULES)
    condition.probed("", 0.0, sure=False)
    condition.probed("nobody listens", 1.0, sure=True)
    assert (condition.healthy, condition.doubtful) == (False, False)


def test_one_that_was_never_well_gets_no_benefit_of_the_doubt() -> None:
    condition = Condition(RULES)
    condition.probed("slow", 0.0, sure=False)
    assert (condition.healthy, condition.reason, condition.doubtful) == (False, "slow", False)
    condition.probed("gone", 1.0, sure=False)
    assert condition.reason == "gone"


# -- the breaker


@pytest.mark.parametrize("between", [NEUTRAL, BUSY])
def test_faults_in_a_row_open_the_breaker_whatever_says_nothing_between_them(between: Outcome) -> None:
    condition = Condition(RULES)
    ended(condition, 0.0, FAULT, between, FAULT, between)
    assert condition.available(0.0)
    ended(condition, 0.0, FAULT)
    assert condition.breaker_state(0.0) is State.OPEN
    assert not condition.available(0.0)
    assert not condition.may_serve(0.0)
    assert condition.signals(0.0).breaker_open


def test_a_trial_that_answers_closes_it_and_it_starts_slowly() -> None:
    condition = opened()
    trial = condition.begin(5.0)
    condition.answered(trial, 6.0)
    assert condition.breaker_state(6.0) is State.CLOSED
    assert condition.available(6.0)
    assert condition.weight(6.0) == 0.1
    assert condition.weight(11.0) == 0.5
    condition.ended(trial, GOOD, 12.0)
    assert condition.weight(12.0) == 0.6  # counted from the recovery
    assert condition.weight(16.0) == 1.0


# -- ejection


def test_an_ejected_endpoint_sits_out_until_its_time_is_over() -> None:
    condition = Condition(RULES)
    condition.eject(15.0, "ejected: failure_share")
    assert not condition.available(14.9)
    assert condition.reason == "ejected: failure_share"
    assert condition.available(15.0)


@pytest.mark.parametrize(
    ("healthy", "reason"), [(None, ""), (True, ""), (False, "ejected: breaker_open")], ids=["unknown", "well", "down"]
)
def test_one_that_returns_starts_slowly_and_is_blamed_no_longer(healthy: bool | None, reason: str) -> None:
    condition = Condition(RULES)
    condition.healthy = healthy
    condition.eject(15.0, "ejected: breaker_open")
    condition.returned(10.0)
    assert condition.available(10.0) == (healthy is not False)
    assert condition.weight(10.0) == 0.1
    assert condition.reason == reason


def test_the_ejector_sees_the_ends_of_the_window() -> None:
    condition = Condition(replace(RULES, breaker=BreakerRules(consecutive_failures=100, min_volume=100, window=10.0)))
    ended(condition, 0.0, GOOD, GOOD, GOOD, FAULT, FAULT, NEUTRAL, BUSY)
    assert condition.signals(1.0) == Signals(successes=3, failures=2)
    assert condition.signals(20.0) == Signals()


def test_an_answered_call_that_breaks_later_is_a_fault_and_no_success() -> None:
    condition = Condition(RULES)
    permit = condition.begin(0.0)
    condition.answered(permit, 0.0)
    condition.ended(permit, FAULT, 1.0)
    assert condition.signals(1.0) == Signals(failures=1)


# -- other rules


def test_other_rules_keep_what_is_known() -> None:
    condition = opened()
    condition.in_flight = 3
    condition.follow(replace(RULES, breaker=replace(RULES.breaker, consecutive_failures=1, window=5.0)))
    assert condition.in_flight == 3
    assert not condition.available(4.9)
    condition.answered(condition.begin(5.0), 5.0)
    assert condition.available(5.0)
    ended(condition, 5.0, FAULT)
    assert not condition.available(5.0)  # one is enough now


def test_the_ends_are_kept_while_the_window_is_the_same() -> None:
    condition = Condition(RULES)
    ended(condition, 0.0, GOOD, FAULT)
    condition.follow(replace(RULES, slow_start=SlowStart(window=1.0)))
    assert condition.signals(0.0) == Signals(successes=1, failures=1)
    condition.follow(replace(RULES, breaker=replace(RULES.breaker, window=5.0)))
    assert condition.signals(0.0) == Signals()


def test_a_call_counts_as_one_success_for_the_breaker() -> None:
    rules = replace(RULES, breaker=BreakerRules(consecutive_failures=100, failure_share=0.5, min_volume=6, window=10.0))
    condition = Condition(rules)
    for _ in range(3):
        permit = condition.begin(0.0)
        condition.answered(permit, 0.0)
        condition.ended(permit, GOOD, 0.0)
    ended(condition, 0.0, FAULT, FAULT)
    assert condition.available(0.0)
    ended(condition, 0.0, FAULT)
    assert not condition.available(0.0)  # three of six


# -- gone and back


def gone_and_back(condition: Condition, now: float) -> None:
    condition.found(healthy=False, reason="refused", now=now)
    condition.found(healthy=True, reason="", now=now)


def test_one_that_was_gone_and_is_back_gets_its_trial_at_once() -> None:
    condition = opened(0.0)
    gone_and_back(condition, 1.0)
    assert condition.breaker_state(1.0) is State.HALF_OPEN
    trial = condition.begin(1.0)
    assert not condition.available(1.0), "one trial, and no more"
    condition.answered(trial, 1.0)
    assert condition.available(1.0)
    assert condition.breaker_state(1.0) is State.CLOSED


def test_a_trial_that_fails_after_it_came_back_opens_the_breaker_for_longer() -> None:
    condition = opened(0.0)
    gone_and_back(condition, 1.0)
    ended(condition, 1.0, FAULT)
    assert not condition.available(10.9)
    assert condition.available(11.0)


def test_what_failed_before_it_was_gone_is_forgotten() -> None:
    condition = Condition(RULES)
    old = condition.begin(0.0)
    ended(condition, 0.0, FAULT, FAULT)
    gone_and_back(condition, 1.0)
    condition.ended(old, FAULT, 1.0)
    ended(condition, 1.0, FAULT, FAULT)
    assert condition.breaker_state(1.0) is State.CLOSED


def test_coming_back_ends_an_ejection() -> None:
    condition = Condition(RULES)
    condition.eject(15.0, "ejected: breaker_open")
    assert not condition.signals(0.0).back
    gone_and_back(condition, 1.0)
    assert condition.available(1.0)
    assert condition.signals(1.0).back
    condition.eject(20.0, "ejected: breaker_open")
    assert not condition.signals(1.0).back


def test_a_probe_that_was_well_all_the_time_ends_no_ejection() -> None:
    condition = Condition(RULES)
    condition.found(healthy=True, reason="", now=0.0)
    condition.eject(15.0, "ejected: no_tokens")
    condition.found(healthy=True, reason="", now=1.0)
    assert not condition.available(1.0)


def test_who_returns_is_not_judged_by_what_it_was_ejected_for() -> None:
    condition = Condition(replace(RULES, breaker=BreakerRules(consecutive_failures=100, min_volume=100, window=60.0)))
    ended(condition, 0.0, FAULT, FAULT)
    condition.returned(15.0)
    assert condition.signals(15.0) == Signals()


# -- gone and back between two probes


def died(condition: Condition, now: float) -> None:
    """Three calls are under way when the engine breaks."""
    for permit in [condition.begin(0.0) for _ in range(3)]:
        condition.failed(permit, now, RequestSource(f"tenant-{permit}", permit), excused=False, broke=0.0)


def test_a_good_probe_after_one_death_brings_the_trial() -> None:
    condition = Condition(RULES)
    condition.probed("", 0.0, sure=False)
    died(condition, 1.0)
    condition.eject(30.0, "ejected: breaker_open")
    assert condition.suspect.is_set()
    assert not condition.may_serve(1.0)
    condition.probed("", 1.1, sure=False)
    assert (condition.available(1.1), condition.breaker_state(1.1)) == (True, State.HALF_OPEN)


def test_a_good_probe_of_an_engine_that_fails_call_after_call_brings_none() -> None:
    condition = opened(1.0)
    condition.healthy = True
    assert condition.suspect.is_set()
    condition.probed("", 1.1, sure=False)
    assert condition.breaker_state(1.1) is State.OPEN
    condition.probed("reset", 1.2, sure=False)
    condition.probed("", 1.3, sure=False)
    assert condition.breaker_state(1.3) is State.HALF_OPEN, "it was gone for a moment"


def test_a_refused_connection_asks_for_a_probe_once() -> None:
    condition = Condition(RULES)
    condition.found(healthy=True, reason="", now=0.0)
    assert not condition.suspect.is_set()
    condition.found(healthy=False, reason="refused", now=1.0)
    assert condition.suspect.is_set()
    condition.suspect.clear()
    condition.found(healthy=False, reason="refused", now=1.0)
    assert not condition.suspect.is_set()
