"""The place that a call would get, against the order in which the queue really serves."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.router.snapshot import snapshot

from lexora_contract.priority import HIGH, LOW, NORMAL
from lexora_router.policy.fair_band import Ticket
from lexora_router.policy.fair_queue import FairQueue

PRIORITIES = st.sampled_from([LOW, 30, NORMAL, HIGH])
TENANTS = st.sampled_from("abcd")
TICKETS = st.builds(Ticket, TENANTS, PRIORITIES, st.integers(0, 50).map(float), st.just(0), st.sampled_from([0.5, 1.0, 3.0]))
ACTS = st.one_of(
    st.tuples(st.just("push"), TICKETS),
    st.tuples(st.just("serve"), TICKETS),
    st.tuples(st.just("pop"), st.integers(0, 100)),
    st.tuples(st.just("leave"), st.integers(0, 100)),
    st.tuples(st.just("wait"), st.floats(0, 20)),
)


def lived(acts: list[tuple[str, object]], aging: float) -> tuple[FairQueue[int], float]:
    """A queue with a past, and the time."""
    queue: FairQueue[int] = FairQueue(aging=aging, max_idle=2)
    now, waiting = 0.0, []
    for act, what in acts:
        if act == "push":
            assert isinstance(what, Ticket)
            queue.push(what, now)
            waiting.append(what)
        elif act == "serve" and not len(queue):
            assert isinstance(what, Ticket)
            queue.serve(what)
        elif act == "pop" and (served := queue.pop(now)) is not None:
            waiting.remove(served)
            queue.charge(served, float(what))  # type: ignore[arg-type]  # a number here
        elif act == "leave" and waiting:
            queue.remove(waiting.pop(int(what) % len(waiting)))  # type: ignore[call-overload]  # a number here
        elif act == "wait":
            now += float(what)  # type: ignore[arg-type]  # a number here
    return queue, now


def pops_before(queue: FairQueue[int], ticket: Ticket[int], now: float) -> int:
    queue.push(ticket, now)
    count = 0
    while queue.pop(now) is not ticket:
        count += 1
    return count


@given(st.lists(ACTS, max_size=60), TICKETS, st.sampled_from([inf, 5.0]))
def test_the_place_is_the_number_of_pops_before_and_finding_it_changes_nothing(
    acts: list[tuple[str, object]], ticket: Ticket[int], aging: float
) -> None:
    queue, now = lived(acts, aging)
    before, own = snapshot(queue), snapshot(ticket)
    place = queue.place(ticket, now)
    assert snapshot(queue) == before
    assert snapshot(ticket) == own
    assert place == pops_before(queue, ticket, now)


def test_priorities_shares_and_debts_count() -> None:
    queue: FairQueue[int] = FairQueue(aging=inf)
    for _ in range(3):
        queue.push(Ticket("batch", NORMAL, 10.0, 0), 0.0)
    queue.push(Ticket("late", LOW, 10.0, 0), 0.0)
    assert queue.place(Ticket("batch", NORMAL, 10.0, 0), 0.0) == 3
    assert queue.place(Ticket("chat", NORMAL, 10.0, 0), 0.0) == 1
    assert queue.place(Ticket("chat", HIGH, 10.0, 0), 0.0) == 0
    assert queue.place(Ticket("chat", LOW, 10.0, 0), 0.0) == 4
    spent = Ticket("chat", NORMAL, 0.0, 0)
    queue.charge(spent, 25.0)
    assert queue.place(Ticket("chat", NORMAL, 10.0, 0), 0.0) == 3
