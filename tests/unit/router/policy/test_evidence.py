import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.policy.evidence import Charge, Evidence, RequestSource, Strength

LIMIT = 3
NONE, THIN, FIRM = Strength
WINDOW = 30.0


def fail(evidence: Evidence, now: float, *sources: RequestSource | None, excused: bool = False) -> list[Charge]:
    charges = [evidence.failed(now, source, excused=excused) for source in sources]
    return [charge for charge in charges if charge is not None]


def requests(tenant: str, *numbers: int) -> list[RequestSource]:
    return [RequestSource(tenant, number) for number in numbers]


def busy(evidence: Evidence, until: float, gap: float, *tenants: str) -> None:
    """One answer every `gap` seconds, from 0 on."""
    for number in range(round(until / gap) + 1):
        evidence.succeeded(tenants[number % len(tenants)], number * gap)


A, B = requests("a", 1, 2, 3, 4), requests("b", 5, 6)


@pytest.mark.parametrize(
    ("sources", "strength"),
    [
        ([*A[:2]], NONE),
        ([*A[:2], B[0]], FIRM),
        ([*A[:3]], THIN),  # nobody but one tenant has asked
        ([A[0]] * 3, THIN),  # nor anything but one request
        ([A[0], A[0], B[0]], THIN),
        ([None] * 3, FIRM),
        ([None, A[0], A[1]], FIRM),
        ([None, A[0], A[0]], THIN),
    ],
)
def test_where_nothing_was_ever_answered_a_row_of_failures_is_enough(
    sources: list[RequestSource | None], strength: Strength
) -> None:
    evidence = Evidence(WINDOW)
    fail(evidence, 1.0, *sources)
    assert evidence.strength(LIMIT, 1.0) is strength


@pytest.mark.parametrize(
    ("sources", "strength"),
    [
        (A[:3], NONE),  # one tenant fails, others are answered
        ([A[0]] * 100, NONE),
        ([*A[:2], B[0]], FIRM),
        ([None] * 3, FIRM),
    ],
)
def test_where_others_are_answered_one_tenant_is_not_enough(sources: list[RequestSource | None], strength: Strength) -> None:
    evidence = Evidence(WINDOW)
    busy(evidence, 10.0, 0.5, "c", "d")
    fail(evidence, 10.1, *sources)
    assert evidence.strength(LIMIT, 10.1) is strength


def test_of_a_single_tenant_different_requests_are_enough() -> None:
    evidence = Evidence(WINDOW)
    busy(evidence, 10.0, 0.5, "a")
    fail(evidence, 10.1, *A[:3])
    assert evidence.strength(LIMIT, 10.1) is THIN


def test_a_success_ends_the_row() -> None:
    evidence = Evidence(WINDOW)
    charges = fail(evidence, 1.0, A[0], B[0])
    evidence.succeeded("c", 1.0)
    fail(evidence, 1.0, A[1], B[1])
    for charge in charges:
        evidence.confirm(charge, 1.0)
    assert evidence.strength(LIMIT, 1.0) is NONE
    assert evidence.ends(1.0) == (1, 4)


def test_what_succeeded_elsewhere_counts_in_full_and_what_failed_elsewhere_not_at_all() -> None:
    evidence = Evidence(WINDOW)
    busy(evidence, 10.0, 0.5, "c", "d")
    charges = fail(evidence, 10.1, *[A[0]] * LIMIT)
    for charge in charges:
        evidence.confirm(charge, 10.2)
        evidence.confirm(charge, 10.2)
    assert evidence.strength(LIMIT, 10.2) is FIRM
    assert evidence.ends(10.2)[1] == LIMIT

    evidence = Evidence(WINDOW)
    busy(evidence, 10.0, 0.5, "c", "d")
    for charge in fail(evidence, 10.1, *A[:2], *B):
        evidence.excuse(charge)
    assert evidence.strength(LIMIT, 10.1) is NONE
    assert evidence.ends(10.1)[1] == 0


def test_when_nothing_is_answered_any_more_excuses_do_not_last() -> None:
    """All endpoints are dead: then each failure has one elsewhere."""
    evidence = Evidence(WINDOW)
    busy(evidence, 10.0, 0.5, "a", "b")
    fail(evidence, 10.5, *A, *B, excused=True)
    assert evidence.strength(LIMIT, 10.5) is NONE
    assert evidence.strength(LIMIT, 10.0 + 8 * 0.5 + 0.5) is THIN


def test_a_request_that_is_sent_again_and_again_says_something_once_answers_have_stopped() -> None:
    evidence = Evidence(WINDOW)
    busy(evidence, 10.0, 0.5, "a", "b")
    fail(evidence, 10.5, *[A[0]] * 10)
    assert evidence.strength(LIMIT, 13.0) is NONE
    assert evidence.strength(LIMIT, 14.5) is THIN


def test_where_answers_and_failures_are_mixed_a_row_must_be_longer_than_chance_makes_it() -> None:
    """Two of three fail: rows of three mean nothing, and one of thirty means that nothing is answered any more."""
    evidence = Evidence(WINDOW)
    for number in range(90):
        now = number / 10
        if number % 3:
            fail(evidence, now, RequestSource("a", number))
            assert evidence.strength(2, now) is NONE or number < 30
        else:
            evidence.succeeded("a", now)
    row = 0
    while evidence.strength(2, 9.0) is NONE:
        row += 1
        fail(evidence, 9.0, RequestSource("a", 1000 + row))
    assert 15 < row < 40


def test_others_than_the_suspects_make_thin_evidence_too_thin() -> None:
    evidence = Evidence(WINDOW)
    fail(evidence, 1.0, *[A[0]] * LIMIT)
    suspects = evidence.suspects(LIMIT)
    assert (suspects.include(A[0]), suspects.include(A[1]), suspects.include(B[0])) == (True, False, False)
    evidence.doubt(suspects, 20.0)
    fail(evidence, 2.0, *[A[0]] * LIMIT)
    assert evidence.strength(LIMIT, 2.0) is NONE
    assert evidence.strength(LIMIT, 20.0) is THIN

    fail(evidence, 20.0, *A)
    suspects = evidence.suspects(LIMIT)
    assert (suspects.include(A[0]), suspects.include(RequestSource("a", 99)), suspects.include(B[0])) == (True, True, False)
    evidence.doubt(suspects, 40.0)
    assert evidence.strength(LIMIT, 20.0) is NONE
    fail(evidence, 20.0, B[0])
    assert evidence.strength(LIMIT, 20.0) is FIRM


sources = st.one_of(st.none(), st.builds(RequestSource, st.sampled_from("abc"), st.integers(0, 5)))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("fail"), sources, st.booleans()),
        st.tuples(st.just("succeed"), st.sampled_from("abc"), st.floats(0, 2)),
        st.tuples(st.sampled_from(["confirm", "excuse"]), st.integers(0, 50), st.none()),
    ),
    max_size=60,
)


@given(steps)
def test_whatever_happens_the_books_are_right(script: list[tuple[str, object, object]]) -> None:
    """Nothing is counted twice or below zero, and no row is evidence that is shorter than the limit."""
    evidence, charges, now, row = Evidence(WINDOW), [], 100.0, 0
    failures = successes = 0
    for kind, what, more in script:
        if kind == "fail":
            assert what is None or isinstance(what, RequestSource)
            charges += fail(evidence, now, what, excused=bool(more))
            failures += 1
            row += 1
        elif kind == "succeed":
            evidence.succeeded(str(what), now)
            successes += 1
            row = 0
        elif charges:
            assert isinstance(what, int)
            charge = charges.pop(what % len(charges))
            evidence.confirm(charge, now) if kind == "confirm" else evidence.excuse(charge)
        good, bad = evidence.ends(now)
        assert good == successes
        assert 0 <= bad <= failures
        if row < LIMIT:
            assert evidence.strength(LIMIT, now) is NONE


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 99)), min_size=LIMIT, max_size=30), st.integers(0, 20))
def test_a_dead_endpoint_of_a_pool_is_out_after_as_many_failures_as_ever(calls: list[tuple[str, int]], before: int) -> None:
    """Whoever asks, and however often the same: each call succeeds elsewhere."""
    evidence = Evidence(WINDOW)
    for number in range(before):
        evidence.succeeded("abc"[number % 3], number * 0.1)
    for count, (tenant, request) in enumerate(calls, 1):
        (charge,) = fail(evidence, 2.5, RequestSource(tenant, request))
        evidence.confirm(charge, 2.5)
        assert (evidence.strength(LIMIT, 2.5) is FIRM) == (count >= LIMIT)
