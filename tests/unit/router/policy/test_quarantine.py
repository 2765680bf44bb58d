from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lexora_router.policy.breaker import BreakerRules
from lexora_router.policy.quarantine import MEMORY_SECONDS, SAMPLE_BYTES, Quarantine, fingerprint

RULES = BreakerRules(consecutive_failures=5, open_time=5.0, max_open_time=20.0)
BODY = b'{"model":"m"}'
REQUEST = fingerprint("/v1/chat/completions", BODY)


def fails(quarantine: Quarantine, endpoint: str, now: float, request: int = REQUEST, **changes: Any) -> bool:
    fields: dict[str, Any] = {"began": now, "permit": 0, "vouched": True, "answered_at": 0.0, "fatal": False} | changes
    fields.setdefault("pool_answered_at", fields["answered_at"])
    return quarantine.failed(request, len(BODY), endpoint, now, **fields)


def test_one_that_fails_everywhere_is_refused_after_as_many_failures_as_open_a_breaker() -> None:
    quarantine = Quarantine(RULES)
    assert len(BODY) not in quarantine.sizes
    assert [fails(quarantine, f"e{number % 2}", 10.0) for number in range(5)] == [False] * 4 + [True]
    assert len(BODY) in quarantine.sizes
    assert (quarantine.wait(REQUEST, 11.0, 0.0), quarantine.wait(REQUEST, 15.0, 0.0)) == (4.0, 0.0)
    assert (quarantine.held(11.0), quarantine.held(15.0)) == (1, 0)
    assert quarantine.wait(REQUEST + 1, 11.0, 0.0) == 0.0


def test_one_that_breaks_engines_is_refused_after_the_second() -> None:
    quarantine = Quarantine(RULES)
    assert [fails(quarantine, f"e{number}", 10.0, fatal=True) for number in range(2)] == [False, True]


def test_one_that_had_tokens_of_its_engines_is_not_the_one_that_breaks_them() -> None:
    """Two engines die one after the other with a stream that each had begun to answer."""
    quarantine = Quarantine(RULES)
    assert not any(fails(quarantine, f"e{number}", 10.0 + number, fatal=True, heard=True) for number in range(3))
    assert not quarantine.suspects(REQUEST)


def test_what_fails_at_one_moment_is_one_failure() -> None:
    """An engine dies with all that it had in work; the same load goes to each engine."""
    quarantine = Quarantine(RULES)
    assert not any(fails(quarantine, f"e{number % 2}", 10.0, began=9.0, fatal=True) for number in range(100))
    assert not quarantine.suspects(REQUEST)
    assert fails(quarantine, "e1", 11.0, began=10.0, fatal=True)


def test_one_that_another_endpoint_begins_to_answer_is_absolved() -> None:
    quarantine = Quarantine(RULES)
    for number in range(100):
        fails(quarantine, f"e{number % 3}", 10.0 + number, fatal=True)
        quarantine.absolve(REQUEST, 10.5 + number)
    assert quarantine.wait(REQUEST, 110.0, 0.0) == 0.0


def test_one_that_has_been_answered_needs_more_to_be_refused() -> None:
    quarantine = Quarantine(RULES)
    fails(quarantine, "e0", 10.0, fatal=True)
    quarantine.succeeded(REQUEST, 10.0, 0)
    assert [fails(quarantine, f"e{number % 2}", 11.0, fatal=True) for number in range(5)] == [False] * 4 + [True]


def test_each_trial_that_fails_makes_the_next_one_wait_longer_and_a_good_one_ends_it() -> None:
    quarantine = Quarantine(RULES)
    for number in range(5):
        fails(quarantine, f"e{number % 2}", 10.0)
    trial = quarantine.begin(REQUEST, 15.0, 0.0)
    assert quarantine.wait(REQUEST, 15.0, 0.0) == RULES.open_time, "one trial at a time"
    assert not fails(quarantine, "e0", 15.0, permit=trial), "it is refused already"
    assert quarantine.wait(REQUEST, 15.0, 0.0) == 10.0
    trial = quarantine.begin(REQUEST, 25.0, 0.0)
    quarantine.left(REQUEST, 25.0, trial)
    assert quarantine.wait(REQUEST, 25.0, 0.0) == 0.0, "a client that left says nothing"
    trial = quarantine.begin(REQUEST, 25.0, 0.0)
    quarantine.succeeded(REQUEST, 26.0, trial)
    assert quarantine.wait(REQUEST, 26.0, 0.0) == 0.0
    assert not quarantine.suspects(REQUEST)


def test_it_is_a_suspect_from_its_second_failure_on() -> None:
    quarantine = Quarantine(RULES)
    seen = []
    for endpoint in ("e0", "e1"):
        fails(quarantine, endpoint, 10.0)
        seen.append(quarantine.suspects(REQUEST))
    assert seen == [False, True]


def test_at_a_single_endpoint_it_takes_others_that_are_answered_meanwhile() -> None:
    quarantine = Quarantine(RULES)
    assert not any(fails(quarantine, "e0", 10.0) for _ in range(100)), "a dead endpoint is no fault of a request"
    assert not quarantine.suspects(REQUEST)
    assert not fails(quarantine, "e0", 10.0, answered_at=9.0)
    assert fails(quarantine, "e0", 12.0, answered_at=11.0)


def test_failures_where_the_probes_fail_as_well_are_the_endpoint_s() -> None:
    quarantine = Quarantine(RULES)
    assert not any(fails(quarantine, f"e{number % 2}", 10.0, vouched=False) for number in range(100))


def test_one_closed_out_while_nothing_was_answered_has_one_trial_as_soon_as_others_are() -> None:
    """A monitor asks the same every second while all engines are dead, and wants to see them come back."""
    quarantine = Quarantine(RULES)
    for number in range(2):
        fails(quarantine, f"e{number}", 10.0, fatal=True, answered_at=9.0)
    assert quarantine.wait(REQUEST, 11.0, 9.0) == 4.0
    assert quarantine.wait(REQUEST, 11.0, 10.5) == 0.0
    trial = quarantine.begin(REQUEST, 11.0, 10.5)
    assert quarantine.wait(REQUEST, 11.0, 10.5) > 0.0, "one trial at a time"
    fails(quarantine, "e0", 12.0, permit=trial, fatal=True, answered_at=10.5)
    assert quarantine.wait(REQUEST, 13.0, 12.5) > 5.0, "others are answered, and it fails"


def test_memory_is_bounded_and_what_is_old_is_forgotten() -> None:
    quarantine = Quarantine(RULES, most=10)
    for number in range(100):
        fails(quarantine, "e0", 10.0, number)
    assert len(quarantine._records) == 10
    fails(quarantine, "e0", 11.0 + MEMORY_SECONDS, 1000)
    assert list(quarantine._records) == [1000]
    assert quarantine.sizes.total() == 1


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5), st.booleans()), max_size=100))
def test_the_sizes_are_those_of_the_known_requests(script: list[tuple[int, int, bool]]) -> None:
    quarantine, now = Quarantine(RULES, most=7), 0.0
    sizes: dict[int, int] = {}
    for request, wanted, good in script:
        now += 1.0
        size = sizes.setdefault(request, wanted)
        if good:
            quarantine.succeeded(request, now, 0)
        else:
            times = {"began": now, "answered_at": now, "pool_answered_at": now}
            quarantine.failed(request, size, "e0", now, **times, vouched=True, fatal=False)
        known = [record.size for record in quarantine._records.values()]
        assert sorted(quarantine.sizes.elements()) == sorted(known)
        assert all(one in quarantine.sizes for one in known)


def test_a_fingerprint_is_of_path_and_body() -> None:
    large = b"x" * (3 * SAMPLE_BYTES)
    prints = [
        fingerprint("/a", b"1"),
        fingerprint("/a", b"2"),
        fingerprint("/b", b"1"),
        fingerprint("/a", large),
        fingerprint("/a", large + b"x"),
        fingerprint("/a", b"y" + large[1:]),
        fingerprint("/a", large[1:] + b"y"),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint("/a", bytes(large)) == fingerprint("/a", bytes(bytearray(large)))
