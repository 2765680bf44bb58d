from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.policy.breaker import TRANSITIONS, Breaker, BreakerRules, Event, State
from lexora_router.policy.evidence import RequestSource

RULES = BreakerRules(consecutive_failures=3, min_volume=10, window=10, open_time=5, max_open_time=40)


def call(breaker: Breaker, now: float, end: str) -> bool:
    permit = breaker.allow(now)
    if permit:
        getattr(breaker, f"on_{end}")(now, permit)
    return bool(permit)


def opened(now: float = 0) -> Breaker:
    breaker = Breaker(RULES)
    for _ in range(3):
        call(breaker, now, "failure")
    assert breaker.state(now) is State.OPEN
    return breaker


def test_every_state_has_a_way_out_and_every_event_is_used() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State)
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker(RULES)
    ends = ["failure", "failure", "success", "failure", "failure", "neutral", "failure"]
    assert [(call(breaker, 0, end), breaker.state(0))[1] for end in ends] == [State.CLOSED] * 6 + [State.OPEN]
    assert breaker.allow(4.9) == 0
    assert not breaker.ready(4.9)
    assert breaker.retry_after(4) == 1
    assert breaker.opened == 1


def test_a_share_of_failures_opens_it_once_there_are_enough_calls() -> None:
    breaker = Breaker(RULES)
    for i in range(10):
        assert breaker.state(0) is State.CLOSED
        call(breaker, 0, "failure" if i % 2 else "success")
    assert breaker.state(0) is State.OPEN


def test_failures_of_long_ago_do_not_count() -> None:
    breaker = Breaker(RULES)
    for i in range(40):
        call(breaker, i * 2.0, "failure" if i % 2 else "success")
    assert breaker.state(80) is State.CLOSED


@pytest.mark.parametrize("end", ["neutral", "success"])
def test_a_flood_of_neutral_ends_or_successes_never_opens_it(end: str) -> None:
    breaker = Breaker(RULES)
    for i in range(1000):
        call(breaker, i / 100, end)
    assert breaker.state(10) is State.CLOSED


def test_neutral_ends_are_not_successes_either() -> None:
    breaker = Breaker(RULES)
    for end in ["neutral"] * 50 + ["failure", "failure", "neutral", "failure"]:
        call(breaker, 0, end)
    assert breaker.state(0) is State.OPEN


def test_half_open_lets_one_trial_through() -> None:
    breaker = opened()
    assert breaker.state(5) is State.HALF_OPEN
    assert breaker.ready(5)
    assert breaker.allow(5)
    assert [breaker.allow(5), breaker.allow(9.9)] == [0, 0]
    assert not breaker.ready(9.9)


@pytest.mark.parametrize("decider", ["first", "second"])
@pytest.mark.parametrize(
    ("end", "state"), [("on_first_token", State.CLOSED), ("on_success", State.CLOSED), ("on_failure", State.OPEN)]
)
def test_a_trial_that_says_nothing_for_an_open_time_lets_one_more_begin(decider: str, end: str, state: State) -> None:
    """A unary answer may take minutes, and the endpoint may be the only one."""
    breaker = opened()
    trials = {"first": breaker.allow(5), "second": breaker.allow(10)}
    assert all(trials.values())
    assert breaker.allow(14.9) == 0, "each open time one call is risked, and no more"
    getattr(breaker, end)(14.9, trials[decider])
    assert breaker.state(14.9) is state


def test_trials_that_hang_come_as_seldom_as_trials_that_fail() -> None:
    breaker = opened()
    call(breaker, 5, "failure")  # open for 10 s
    begun = [now for now in range(5, 60) if breaker.allow(now)]
    assert begun == [15, 25, 35, 45, 55]


def test_an_older_trial_that_leaves_does_not_make_way_twice() -> None:
    breaker = opened()
    first, second = breaker.allow(5), breaker.allow(10)
    breaker.on_neutral(11, first)
    assert breaker.allow(11) == 0
    breaker.on_neutral(11, second)
    assert breaker.allow(11)


def test_a_good_trial_closes_it() -> None:
    breaker = opened()
    assert call(breaker, 5, "success")
    assert breaker.state(5) is State.CLOSED
    for _ in range(2):
        call(breaker, 5, "failure")
    assert breaker.state(5) is State.CLOSED  # counted anew


def test_a_first_token_passes_the_trial_and_its_end_counts_as_any_other() -> None:
    breaker = opened()
    trial = breaker.allow(5)
    assert breaker.on_first_token(5, trial)
    assert breaker.state(5) is State.CLOSED
    assert not breaker.on_first_token(5, breaker.allow(5)), "only a trial closes it"
    breaker.on_failure(6, trial)
    assert breaker.ends(6) == (0, 1)
    for _ in range(2):
        call(breaker, 6, "failure")
    assert breaker.state(6) is State.OPEN


def test_a_stream_counts_once_by_its_end() -> None:
    breaker = Breaker(RULES)
    for end in ["failure", "failure", "failure"]:
        assert breaker.state(0) is State.CLOSED
        permit = breaker.allow(0)
        breaker.on_first_token(0, permit)
        assert breaker.ends(0)[0] == 0
        getattr(breaker, f"on_{end}")(0, permit)
    assert breaker.state(0) is State.OPEN


def test_without_a_share_only_failures_in_a_row_open_it() -> None:
    breaker = Breaker(replace(RULES, failure_share=None))
    for _ in range(100):
        for end in ["failure", "failure", "success"]:
            call(breaker, 0, end)
    assert breaker.state(0) is State.CLOSED
    assert breaker.ends(0) == (100, 200)


@pytest.mark.parametrize("times", [1, 5])
def test_a_neutral_or_cancelled_trial_makes_way(times: int) -> None:
    breaker = opened()
    for _ in range(times):
        assert call(breaker, 5, "neutral")
        assert breaker.state(5) is State.HALF_OPEN
    assert call(breaker, 5, "success")
    assert breaker.state(5) is State.CLOSED


def test_a_trial_that_leaves_twice_makes_way_once() -> None:
    breaker = opened()
    first = breaker.allow(5)
    breaker.on_neutral(5, first)
    assert breaker.allow(5)
    breaker.on_neutral(5, first)
    assert breaker.allow(5) == 0


@pytest.mark.parametrize("end", ["on_success", "on_failure", "on_neutral"])
def test_calls_from_before_do_not_decide_about_the_trial(end: str) -> None:
    breaker = Breaker(RULES)
    straggler = breaker.allow(0)
    breaker.trip(0)
    getattr(breaker, end)(1, straggler)
    assert breaker.state(1) is State.OPEN
    assert breaker.allow(5)
    getattr(breaker, end)(5, straggler)
    assert breaker.state(5) is State.HALF_OPEN
    assert breaker.allow(5) == 0


def test_open_times_grow_up_to_the_bound_and_start_over_after_a_good_while() -> None:
    breaker, now = opened(), 0.0
    waits = []
    for _ in range(6):
        waits.append(breaker.retry_after(now))
        now += waits[-1]
        call(breaker, now, "failure")
    assert waits == [5, 10, 20, 40, 40, 40]
    now += 40
    call(breaker, now, "success")
    now += 39
    breaker.trip(now)
    assert breaker.retry_after(now) == 40  # it flaps
    now += 40
    call(breaker, now, "success")
    now += 40
    breaker.trip(now)
    assert breaker.retry_after(now) == 5


def test_tripping_what_is_open_changes_nothing() -> None:
    breaker = opened()
    breaker.trip(3)
    assert (breaker.retry_after(3), breaker.opened) == (2, 1)


ends = st.sampled_from(["success", "failure", "neutral", "hold", "trip"])


@given(st.lists(st.tuples(st.floats(0, 20), ends), max_size=120))
def test_it_never_lets_two_trials_through_and_never_sticks(steps: list[tuple[float, str]]) -> None:
    breaker, now = Breaker(RULES), 0.0
    held: list[int] = []
    for gap, end in steps:
        now += gap
        before = breaker.state(now)
        ready = breaker.ready(now)
        permit = breaker.allow(now)
        assert ready == bool(permit)
        if before is State.HALF_OPEN and permit:
            assert breaker.allow(now) == 0
        if end == "trip":
            breaker.trip(now)
        elif end == "hold":
            held.append(permit)
        elif permit:
            getattr(breaker, f"on_{end}")(now, permit)
        if len(held) > 3:
            breaker.on_neutral(now, held.pop(0))
        assert 0 <= breaker.retry_after(now) <= RULES.max_open_time + 1e-6
    assert breaker.allow(now + RULES.max_open_time + 1e-6)


# -- on thin evidence


MALLORY, ALICE = RequestSource("mallory", 1), RequestSource("alice", 2)


def opened_by(source: RequestSource, now: float = 0.0) -> Breaker:
    breaker = Breaker(RULES)
    for _ in range(RULES.consecutive_failures):
        breaker.on_failure(now, breaker.allow(now), source)
    assert breaker.state(now) is State.OPEN
    return breaker


def test_where_one_request_opened_it_another_one_finds_it_closed() -> None:
    breaker = opened_by(MALLORY)
    assert breaker.opened_on_thin_evidence
    assert not breaker.give_way(1.0, MALLORY)
    assert breaker.allow(1.0) == 0
    assert breaker.give_way(1.0, ALICE)
    assert breaker.state(1.0) is State.CLOSED
    assert not breaker.opened_on_thin_evidence
    for _ in range(100):
        breaker.on_failure(2.0, breaker.allow(2.0), MALLORY)
    assert breaker.state(2.0) is State.CLOSED
    for tenant in ("alice", "bob", "carol"):
        breaker.on_failure(3.0, breaker.allow(3.0), RequestSource(tenant, 7))
    assert breaker.state(3.0) is State.OPEN
    assert not breaker.give_way(3.0, RequestSource("dan", 8)), "three of three: that is no matter of who asks"


def test_an_answer_to_an_earlier_call_closes_it_as_well() -> None:
    breaker = Breaker(RULES)
    earlier = breaker.allow(0.0)
    for _ in range(3):
        breaker.on_failure(0.0, breaker.allow(0.0), MALLORY)
    assert breaker.state(0.0) is State.OPEN
    breaker.on_success(1.0, earlier, "alice")
    assert breaker.state(1.0) is State.CLOSED


def test_a_trial_whose_request_fails_elsewhere_too_makes_way_for_the_next() -> None:
    for known_before in (True, False):
        breaker = Breaker(RULES)
        for number in range(60):
            breaker.on_success(number / 10, breaker.allow(number / 10), "alice")
        breaker.trip(6.0)
        trial = breaker.allow(11.0)
        charge = breaker.on_failure(11.0, trial, MALLORY, excused=known_before)
        if charge is not None:
            assert not breaker.ready(11.0)
            breaker.excuse(11.0, charge)
        assert breaker.ready(11.0) == breaker._evidence.lively(11.0)


def test_a_failure_that_turns_out_to_be_the_endpoint_s_opens_it_then() -> None:
    breaker = Breaker(RULES)
    for number in range(100):
        breaker.on_success(number / 10, breaker.allow(number / 10), "alice")
    charges = [breaker.on_failure(10.0, breaker.allow(10.0), MALLORY) for _ in range(3)]
    assert breaker.state(10.0) is State.CLOSED
    for charge in charges:
        assert charge is not None
        breaker.confirm(10.1, charge)
    assert breaker.state(10.1) is State.OPEN


def test_what_was_under_way_together_when_the_engine_broke_is_one_failure_for_the_trial() -> None:
    breaker = Breaker(RULES)
    permits = [breaker.allow(0) for _ in range(3)]
    for permit, began in zip(permits, (0.0, 0.5, 0.9), strict=True):
        breaker.on_failure(1.0, permit, broke=began)
    assert (breaker.state(1), breaker.opened_by_one_death) == (State.OPEN, True)
    breaker.back(1.1)
    assert (breaker.state(1.1), breaker.opened_by_one_death) == (State.HALF_OPEN, False)
    breaker.on_failure(1.2, breaker.allow(1.2), broke=1.2)
    assert (breaker.state(1.2), breaker.opened_by_one_death) == (State.OPEN, False), "the engine that came breaks, too"
    assert breaker.retry_after(1.2) == 10


@pytest.mark.parametrize("broke", [[1.0, 2.0, 3.0], [None, None, None], [0.0, None, None]], ids=["each", "none", "one"])
def test_failures_one_after_the_other_are_no_one_death(broke: list[float | None]) -> None:
    breaker = Breaker(RULES)
    for number, began in enumerate(broke, 1):
        breaker.on_failure(number, breaker.allow(number), broke=began)
    assert (breaker.state(3), breaker.opened_by_one_death) == (State.OPEN, False)
