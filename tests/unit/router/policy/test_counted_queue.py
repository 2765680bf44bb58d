"""A fair queue that says what it serves, and is charged for what others serve."""

from lexora_router.policy.counted_queue import MAX_COUNTED, MAX_LISTED, CountedQueue, WaitingFlow
from lexora_router.policy.fair_band import Ticket


def ticket(tenant: str, priority: int = 50, cost: float = 10.0, weight: float = 1.0) -> Ticket[str]:
    return Ticket(tenant, priority, cost, tenant, weight)


def queue(*tickets: Ticket[str]) -> CountedQueue[str]:
    made: CountedQueue[str] = CountedQueue(aging=10.0)
    for each in tickets:
        made.push(each, 0.0)
    return made


def test_what_is_served_is_counted_once_by_weight() -> None:
    made = queue(ticket("a", weight=2.0), ticket("b"))
    first = made.pop(0.0)
    assert first is not None
    made.charge(first, 30.0)
    made.charge(first, -4.0)
    second = made.pop(0.0)
    assert second is not None
    made.serve(ticket("c", 100))
    assert made.take_served() == ({(50, "a"): 18.0, (50, "b"): 10.0, (100, "c"): 10.0}, 56.0, 3)
    assert made.take_served() == ({}, 0.0, 0)


def test_flows_are_listed_in_their_order_by_the_levels_they_have_reached() -> None:
    made = queue(ticket("a", 0), ticket("b"), ticket("c"), ticket("c"))
    made.charge_others(50, "b", 5.0)
    assert list(made.flows(0.0)) == [
        WaitingFlow("c", 50, 50, 1.0, 2),
        WaitingFlow("b", 50, 50, 1.0, 1),
        WaitingFlow("a", 0, 0, 1.0, 1),
    ]
    assert made.top(0.0) == 50
    assert [flow.level for flow in made.flows(11.0)] == [100, 100, 50]
    assert made.top(11.0) == 100
    assert queue().top(0.0) == -1


def test_a_flow_that_others_serve_goes_later_here() -> None:
    made = queue(*(ticket(tenant) for _ in range(4) for tenant in ("a", "b")))
    made.charge_others(50, "a", 25.0)
    made.charge_others(50, "unknown", 1e9)
    made.charge_others(0, "a", 1e9)
    assert [popped.tenant for _ in range(8) if (popped := made.pop(0.0)) is not None] == list("bbbabaaa")


def test_of_many_flows_some_are_named_and_some_counted() -> None:
    many = MAX_COUNTED + 10
    made = queue(*(ticket(f"tenant-{number}") for number in range(many)))
    flows = list(made.flows(0.0))
    assert len(flows) == MAX_LISTED + 1
    assert sum(flow.waiting for flow in flows) == many
    assert flows[-1] == WaitingFlow("", 50, 50, float(many - MAX_LISTED), many - MAX_LISTED)
    for _ in range(many):
        made.pop(0.0)
    charges, tokens, calls = made.take_served()
    assert (len(charges), tokens, calls) == (MAX_COUNTED, 10.0 * many, many)
