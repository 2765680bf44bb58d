"""The program of credit: in memory and in Valkey it grants the same."""

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lexora_router.policy.rate_limits import RateLimits
from lexora_router.state.programs.credit import CREDIT, CreditAnswer, CreditAsk, Said
from tests.contract.state.side_by_side import SideBySide, check
from tests.support.replicas import Fate, World
from tests.support.valkey import ValkeyProcess

PROGRAMS = {"credit": CREDIT}
AMOUNTS = st.integers(0, 400).map(lambda quarters: quarters / 4)
TOTALS = st.integers(-40, 400).map(lambda quarters: quarters / 4)


def said(**fields: float) -> Said:
    usual = {
        "life": 1,
        "rate": 10.0,
        "burst": 100.0,
        "granted": 0.0,
        "spent": 0.0,
        "returned": 0.0,
        "given": 0.0,
        "owed": 0.0,
        "paid": 0.0,
        "target": 0.0,
        "level": 100.0,
        "lease": 0.0,
    }
    return Said("b", **(usual | fields))  # type: ignore[arg-type]


@st.composite
def asks(draw: st.DrawFn) -> CreditAsk:
    names = draw(st.lists(st.sampled_from(["a", "b", "c"]), unique=True, max_size=3))
    buckets = [
        Said(
            name,
            draw(st.sampled_from([1, 1, 1, 2])),
            draw(st.sampled_from([0.0, 0.5, 8.0, 64.0])),
            draw(st.sampled_from([1.0, 4.0, 32.0, 256.0])),
            *(draw(TOTALS) for _ in range(6)),
            *(draw(AMOUNTS) for _ in range(3)),
        )
        for name in names
    ]
    needs = st.lists(st.tuples(st.integers(0, max(len(names) - 1, 0)), AMOUNTS), max_size=3)
    return CreditAsk(buckets, draw(st.lists(needs, max_size=4)) if names else [])


def test_made_up_asks_have_the_same_answers(server: ValkeyProcess) -> None:
    check(server, PROGRAMS, {"credit": asks()}, examples=30)


def test_a_burst_is_granted_once_and_the_dead_give_back_what_they_hold(server: ValkeyProcess) -> None:
    with SideBySide(server, PROGRAMS) as both:
        both.join("a")
        both.join("b")

        def ask(member: str, *calls: float, **fields: float) -> tuple[float, float]:
            request = CreditAsk([said(**fields)], [[(0, amount)] for amount in calls])
            ((granted, level),) = both.exchange(member, ("credit", request)).answers[0].buckets
            return granted, level

        assert ask("a", 60, 50, 30) == (90, 10)  # 50 does not fit any more, 30 does
        assert ask("a", 60, 50, 30, granted=90) == (90, 10)  # the same once more
        assert ask("b", 20, target=8) == (5, 5)  # of half of what is left
        both.advance(8)
        assert ask("b", granted=5, spent=25) == (25, -15)  # the bucket was full; a debt is paid at once
        assert ask("b", granted=25, spent=25, returned=2) == (27, -15)
        both.advance(16)
        both.exchange("b")
        both.advance(16)
        assert both.exchange("a").known is False
        granted, level = ask("b", granted=27, spent=25, returned=2)
        assert (granted, level) == (27, pytest.approx(100))


def test_what_is_in_use_of_places_is_free_when_its_member_is_gone(server: ValkeyProcess) -> None:
    with SideBySide(server, PROGRAMS) as both:
        both.join("a")
        both.join("b")

        def ask(member: str, *calls: float, **fields: float) -> tuple[float, float]:
            request = CreditAsk([said(rate=0.0, burst=3.0, **fields)], [[(0, amount)] for amount in calls])
            ((granted, level),) = both.exchange(member, ("credit", request)).answers[0].buckets
            return granted, level

        assert ask("a", 1, 1) == (2, 1)
        assert ask("a", granted=2, spent=2) == (2, 1)
        assert ask("b", 1, 1) == (1, 0)
        both.leave("a")
        assert ask("b", 1, granted=1, spent=1) == (2, 1)


class BothStores:
    """Both stores, for replicas that lease from them."""

    def __init__(self, both: SideBySide) -> None:
        self._both = both
        self._eighths = 0

    def at(self, now: float) -> None:
        eighths = round(now * 8)
        self._both.advance(eighths - self._eighths if self._eighths else 0)
        self._eighths = eighths

    def leave(self, member: str) -> None:
        self._both.leave(member)

    def empty(self) -> None:
        raise NotImplementedError

    def exchange(self, member: str, ask: CreditAsk | None, *, join: bool) -> tuple[bool, int, CreditAnswer | None]:
        answer = self._both.exchange(member, *(() if ask is None else (("credit", ask),)), join=join)
        return answer.known, answer.members, answer.answers[0] if answer.answers else None


@settings(max_examples=60, deadline=None, phases=[phase for phase in Phase if phase is not Phase.explain])
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["call", "call", "call", "call", "settle", "exchange", "tick", "busy", "leave"]),
            st.sampled_from(["heard", "heard", "heard", "lost", "unheard"]),
            st.sampled_from([0, 0, 0, 1, 2, 8, 30]),
            st.integers(1, 400),
        ),
        max_size=40,
    ),
    st.sampled_from([5, 40, 400]),
    st.sampled_from([None, 3, 60]),
)
def test_replicas_find_the_same_at_both(
    server: ValkeyProcess, happening: list[tuple[int, str, Fate, int, int]], burst: int, most: int | None
) -> None:
    with SideBySide(server, PROGRAMS) as both:
        world = World(RateLimits(8.0, burst, 2400, most), store=BothStores(both))
        open_calls = []
        for at, what, fate, eighths, amount in happening:
            world.step(eighths / 8)
            if at >= len(world.replicas):
                continue
            replica = world.replicas[at]
            if what == "call":
                for _ in range(1 + amount % 8):
                    reservation = replica.check(amount, fate=fate).reservation
                    if reservation is not None:
                        open_calls.append(reservation)
            elif what == "settle":
                for reservation in open_calls[::2]:
                    reservation.settle(amount, world.now)
                del open_calls[::2]
            elif what == "busy":
                for eighth in range(8):
                    world.step(0.125)
                    for place, each in enumerate(world.replicas):
                        found = [each.check(amount // 8).reservation for _ in range(1 + amount % (12 - 5 * place))]
                        open_calls += [reservation for reservation in found if reservation is not None]
                        if (eighth + place) % 3:
                            each.exchange()
            elif what == "tick":
                world.tick(0.125)
            elif what == "leave" and not replica.degraded:
                replica.leave()
            else:
                replica.exchange(fate)
