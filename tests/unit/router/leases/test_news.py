"""News of endpoints between replicas."""

from tests.unit.router.support import RULES

from lexora_router.fleet.endpoint_health import Condition
from lexora_router.leases.news import LOOK_SECONDS, MAX_UNHEARD, HealthNews, Watched
from lexora_router.policy.breaker import WARNED_FAILURES
from lexora_router.policy.evidence import RequestSource
from lexora_router.state.program import Turn
from lexora_router.state.programs.board import BoardAnswer, BoardProgram

PLACES = ("http://e:1", "http://e:2")


class Replica:
    def __init__(self, name: str, board: BoardProgram) -> None:
        self.name = name
        self.board = board
        self.conditions = {address: Condition(RULES) for address in PLACES}
        self.news = HealthNews(lambda: [("main", *each) for each in self.conditions.items()])
        self.exchange(0.0)
        for condition in self.conditions.values():
            condition.found(healthy=True, reason="", now=0.0)
            condition.suspect.clear()

    def exchange(self, now: float, *, lost: bool = False) -> BoardAnswer:
        ask = self.news.ask(now)
        answer = self.board.run(ask, Turn(self.name, now, {"a": 1e9, "b": 1e9}))
        if not lost:
            self.news.hear(answer, now)
        return answer

    def fail(self, times: int, now: float) -> None:
        condition = self.conditions[PLACES[0]]
        for number in range(times):
            condition.failed(condition.begin(now), now, RequestSource(f"tenant-{number}", number), excused=False)


def two() -> tuple[Replica, Replica]:
    board = BoardProgram()
    return Replica("a", board), Replica("b", board)


def test_a_breaker_that_opens_at_one_makes_the_other_look_and_opens_there_after_fewer_failures() -> None:
    one, other = two()
    assert RULES.breaker.consecutive_failures > WARNED_FAILURES
    one.fail(RULES.breaker.consecutive_failures, 1.0)
    assert one.conditions[PLACES[0]].breaker_open(1.0)
    one.exchange(1.1, lost=True)
    one.exchange(1.2)
    other.exchange(1.3)
    heard = other.conditions[PLACES[0]]
    assert heard.suspect.is_set()
    assert heard.available(1.3)  # a fact of another one is no verdict
    assert not other.conditions[PLACES[1]].suspect.is_set()
    heard.suspect.clear()
    other.exchange(1.4)
    assert not heard.suspect.is_set()  # heard once
    other.fail(WARNED_FAILURES, 1.5)
    assert heard.breaker_open(1.5)


def test_the_warning_ends() -> None:
    one, other = two()
    one.fail(RULES.breaker.consecutive_failures, 1.0)
    one.exchange(1.1)
    other.exchange(1.2)
    later = 1.3 + RULES.breaker.window
    other.fail(WARNED_FAILURES, later)
    assert not other.conditions[PLACES[0]].breaker_open(later)


def test_an_ejection_and_an_engine_that_is_gone_make_the_other_look() -> None:
    one, other = two()
    one.conditions[PLACES[0]].eject(20.0, "ejected: no_tokens")
    one.conditions[PLACES[1]].found(healthy=False, reason="refused", now=1.0)
    one.exchange(1.0)
    other.exchange(1.1)
    assert all(condition.suspect.is_set() and condition.available(1.1) for condition in other.conditions.values())
    one.exchange(1.2)
    assert other.exchange(1.3).facts == ()


def test_what_is_not_heard_is_bounded() -> None:
    one, _ = two()
    for number in range(2 * MAX_UNHEARD):
        one.conditions[PLACES[0]].eject(float(number), "")
        assert len(one.news.ask(1.0 + number).facts) <= MAX_UNHEARD


def test_endpoints_are_not_looked_at_with_each_of_many_exchanges() -> None:
    looks = 0

    def watched() -> tuple[Watched, ...]:
        nonlocal looks
        looks += 1
        return ()

    news = HealthNews(watched)
    for at in range(1000):
        assert news.ask(at / 1000).facts == ()
    assert 10 <= looks <= 1 + 1 / LOOK_SECONDS
