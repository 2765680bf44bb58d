"""The program of the board: the same in Lua as in Python."""

from hypothesis import strategies as st

from lexora_router.state.programs.board import BOARD, MAX_FACTS, BoardAsk, Fact
from tests.contract.state.side_by_side import SideBySide, check
from tests.support.valkey import ValkeyProcess

FACTS = st.builds(
    Fact,
    number=st.integers(1, 30),
    kind=st.sampled_from(["breaker_opened", "ejected"]),
    backend=st.just("main"),
    address=st.sampled_from(["http://e:1", "http://ü:2"]),
)
ASKS = st.builds(BoardAsk, facts=st.lists(FACTS, max_size=3).map(tuple), read=st.integers(0, 20))


def fact(number: int) -> Fact:
    return Fact(number, "ejected", "main", "http://e:1")


def test_made_up_facts_are_read_alike(server: ValkeyProcess) -> None:
    check(server, {"board": BOARD}, {"board": ASKS}, examples=40)


def test_a_fact_is_read_once_by_each_other_member_and_no_more_after_its_time(server: ValkeyProcess) -> None:
    with SideBySide(server, {"board": BOARD}) as both:
        for member in "abc":
            both.join(member)
        said = BoardAsk((fact(1),), 0)
        assert both.exchange("a", ("board", said)).answers[0].facts == ()
        both.exchange("a", ("board", said))  # its answer was lost: it is said again, and is one
        heard = both.exchange("b", ("board", BoardAsk((), 0))).answers[0]
        assert heard.facts == (fact(1),)
        assert both.exchange("b", ("board", BoardAsk((), heard.read))).answers[0].facts == ()
        for _ in range(5):
            both.advance(20)
            for member in "abc":
                both.exchange(member)
        assert both.exchange("c", ("board", BoardAsk((), 0))).answers[0].facts == ()


def test_a_flood_of_facts_is_bounded(server: ValkeyProcess) -> None:
    with SideBySide(server, {"board": BOARD}) as both:
        for member in "ab":
            both.join(member)
        for first in range(1, 400, 50):
            both.exchange("a", ("board", BoardAsk(tuple(map(fact, range(first, first + 50))), 0)))
        assert len(both.exchange("b", ("board", BoardAsk((), 0))).answers[0].facts) == MAX_FACTS
