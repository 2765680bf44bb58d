"""The store itself: members, their order, their end; over memory and Valkey."""

import pytest
from hypothesis import strategies as st

from lexora_router.state.port import StateUnavailable
from tests.contract.state.side_by_side import SideBySide, check
from tests.contract.state.tally import TALLY, TallyRequest
from tests.support.valkey import ValkeyProcess

PROGRAMS = {"tally": TALLY, "other": TALLY}
NUMBERS = st.one_of(st.integers(-1000, 1000).map(float), st.floats(-1e9, 1e9, allow_subnormal=False))
REQUESTS = st.builds(
    TallyRequest,
    add=st.none() | st.integers(0, 50),
    parts=st.lists(NUMBERS, max_size=4),
    note=st.none() | st.text(max_size=8),
)


def test_made_up_exchanges_have_the_same_answers(server: ValkeyProcess) -> None:
    check(server, PROGRAMS, {"tally": REQUESTS, "other": REQUESTS})


def test_a_member_is_given_up_when_it_is_silent(server: ValkeyProcess) -> None:
    with SideBySide(server, PROGRAMS) as both:
        assert both.exchange("a", ("tally", TallyRequest(1))).known is False  # it has not joined: nothing is run
        both.join("a")
        both.join("b")
        both.exchange("a", ("tally", TallyRequest(5)))
        answer = both.exchange("b", ("tally", TallyRequest(7)))
        assert (answer.members, answer.answers[0].total) == (2, 12)
        both.advance(16)
        both.exchange("b")
        both.advance(9)
        assert both.exchange("a", ("tally", TallyRequest(5))).known is False
        answer = both.exchange("b", ("tally", TallyRequest()))
        assert (answer.members, answer.answers[0].by) == (1, {"b": 7})


def test_an_exchange_that_comes_behind_a_later_one_is_not_run(server: ValkeyProcess) -> None:
    with SideBySide(server, PROGRAMS) as both:
        both.join("a")
        both.exchange("a", ("tally", TallyRequest(5)), number=9)
        with pytest.raises(StateUnavailable):
            both.exchange("a", ("tally", TallyRequest(3)), number=8)
        with pytest.raises(StateUnavailable):
            both.exchange("a", ("tally", TallyRequest(4)), number=9)
        assert both.exchange("a", ("tally", TallyRequest()), number=10).answers[0].total == 5


def test_a_clock_that_is_put_back_stands_still(server: ValkeyProcess) -> None:
    with SideBySide(server, PROGRAMS) as both:
        both.join("a")
        before = both.exchange("a", ("tally", TallyRequest())).answers[0].now
        both.advance(-8 * 3600)
        assert both.exchange("a", ("tally", TallyRequest())).answers[0].now == before
        both.advance(4)
        assert both.exchange("a", ("tally", TallyRequest())).answers[0].now == before + 0.5
        both.advance(24)
        assert both.exchange("a").known is False
