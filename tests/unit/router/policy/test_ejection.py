import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.policy.ejection import EjectionRules, Ejector, Reason, Signals, most_ejected

GOOD = Signals(successes=100)
OPEN = Signals(breaker_open=True)
SILENT = Signals(silence=31)
FAILS = Signals(successes=10, failures=10)
RULES = EjectionRules(base_time=10, max_time=35, forgive_after=60)


@pytest.mark.parametrize(
    ("endpoints", "percent", "most"),
    [
        (0, 50, 0),
        (1, 100, 0),
        (2, 50, 1),
        (2, 49, 0),
        (3, 50, 1),
        (3, 100, 2),
        (4, 50, 2),
        (10, 10, 1),
        (10, 100, 9),
        (5, 0, 0),
    ],
)
def test_how_many_may_sit_out(endpoints: int, percent: int, most: int) -> None:
    assert most_ejected(endpoints, percent) == most


@pytest.mark.parametrize(
    ("signals", "reason"),
    [
        (OPEN, Reason.BREAKER_OPEN),
        (SILENT, Reason.NO_TOKENS),
        (FAILS, Reason.FAILURE_SHARE),
        (GOOD, None),
        (Signals(successes=11, failures=10), None),
        (Signals(failures=19), None),
        (Signals(silence=29.9), None),
        (Signals(), None),
    ],
)
def test_what_an_endpoint_is_ejected_for(signals: Signals, reason: Reason | None) -> None:
    ejector = Ejector(RULES)
    verdict = ejector.judge({"a": signals, "b": GOOD}, 100)
    assert [ejection.reason for ejection in verdict.ejected] == ([] if reason is None else [reason])
    assert ejector.ejected(100) == ([] if reason is None else ["a"])


def test_the_surest_cases_go_first_when_not_all_may() -> None:
    pool = {"fails": FAILS, "fails more": Signals(failures=20), "silent": SILENT, "open": OPEN, "e": GOOD, "f": GOOD}
    for percent, keys in [(20, ["open"]), (40, ["open", "silent"]), (50, ["open", "silent", "fails more"])]:
        verdict = Ejector(EjectionRules(max_ejection_percent=percent)).judge(pool, 0)
        assert [ejection.key for ejection in verdict.ejected] == keys


def test_one_stays_whatever_the_percentage() -> None:
    ejector = Ejector(EjectionRules(max_ejection_percent=100))
    assert len(ejector.judge(dict.fromkeys("abc", OPEN), 0).ejected) == 2
    assert Ejector(EjectionRules(max_ejection_percent=100)).judge({"alone": OPEN}, 0).ejected == ()


def test_it_comes_back_when_its_time_is_over_and_stays_away_longer_each_time() -> None:
    ejector, now, lengths = Ejector(RULES), 0.0, []
    for _ in range(5):
        (ejection,) = ejector.judge({"a": OPEN, "b": GOOD}, now).ejected
        lengths.append(ejection.until - now)
        assert ejector.is_ejected("a", ejection.until - 0.1)
        assert not ejector.is_ejected("a", ejection.until)
        assert ejector.judge({"a": GOOD, "b": GOOD}, ejection.until - 0.1).returned == ()
        now = ejection.until
        assert ejector.judge({"a": OPEN, "b": GOOD}, now).returned == ("a",)
    assert lengths == [10, 20, 30, 35, 35]


def test_good_conduct_is_forgiven_step_by_step() -> None:
    ejector, now = Ejector(RULES), 0.0
    pool = {"a": OPEN, "b": GOOD}
    for _ in range(3):
        now = ejector.judge(pool, now).ejected[0].until
        ejector.judge(pool, now)
    (ejection,) = ejector.judge(pool, now + 60).ejected
    assert ejection.count == 3
    (ejection,) = (ejector.judge(pool, ejection.until), ejector.judge(pool, ejection.until + 1000))[1].ejected
    assert ejection.count == 1


def test_a_pool_that_shrinks_takes_back_those_who_have_served_longest() -> None:
    ejector = Ejector(RULES)
    pool = dict.fromkeys("abcd", GOOD)
    ejector.judge({**pool, "a": OPEN}, 0)
    ejector.judge({**pool, "a": OPEN, "b": OPEN}, 1)
    assert ejector.ejected(2) == ["a", "b"]
    verdict = ejector.judge({"a": OPEN, "b": OPEN, "c": GOOD}, 2)
    assert (verdict.returned, verdict.ejected) == (("a",), ())
    assert ejector.ejected(2) == ["b"]


def test_absent_endpoints_are_forgotten() -> None:
    ejector = Ejector(RULES)
    ejector.judge({"a": OPEN, "b": GOOD}, 0)
    ejector.judge({"b": GOOD, "c": GOOD}, 1)
    assert not ejector.is_ejected("a", 1)
    assert len(ejector._records) == 2


signals = st.builds(Signals, st.integers(0, 40), st.integers(0, 40), st.booleans(), st.floats(0, 60))
pools = st.dictionaries(st.sampled_from("abcdefgh"), signals, min_size=1)


@given(st.lists(st.tuples(st.floats(0, 40), pools), max_size=30), st.integers(0, 100))
def test_the_pool_is_never_emptied_beyond_the_bound(rounds: list[tuple[float, dict[str, Signals]]], percent: int) -> None:
    ejector, now = Ejector(EjectionRules(max_ejection_percent=percent, base_time=10)), 0.0
    for gap, pool in rounds:
        now += gap
        verdict = ejector.judge(pool, now)
        out = ejector.ejected(now)
        assert set(out) <= set(pool)
        assert len(out) <= len(pool) * percent / 100
        assert len(out) < len(pool)
        assert {ejection.key for ejection in verdict.ejected} <= set(out)
        assert not set(verdict.returned) & set(out)
        assert all(ejection.until > now for ejection in verdict.ejected)


def test_who_was_gone_and_is_back_makes_room_for_others() -> None:
    ejector = Ejector(EjectionRules(max_ejection_percent=50))
    pool = {"a": OPEN, "b": GOOD, "c": GOOD}
    assert [ejection.key for ejection in ejector.judge(pool, 0).ejected] == ["a"]
    assert ejector.judge({"a": GOOD, "b": OPEN, "c": GOOD}, 1).ejected == (), "one of three is the most"
    verdict = ejector.judge({"a": Signals(back=True), "b": OPEN, "c": GOOD}, 2)
    assert verdict.returned == ("a",)
    assert [ejection.key for ejection in verdict.ejected] == ["b"]
    assert ejector.judge({"a": Signals(back=True), "b": OPEN, "c": GOOD}, 3).returned == ()
