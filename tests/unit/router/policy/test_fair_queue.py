import gc
import random
import tracemalloc
from collections import Counter
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_contract.priority import HIGH, LOW, NORMAL
from lexora_router.policy.fair_band import Ticket
from lexora_router.policy.fair_queue import FairQueue


def ticket(tenant: str = "a", priority: int = NORMAL, cost: float = 1.0, item: int = 0, weight: float = 1.0) -> Ticket[int]:
    return Ticket(tenant, priority, cost, item, weight)


def queue(aging: float = inf, max_idle: int = 512) -> FairQueue[int]:
    return FairQueue(aging=aging, max_idle=max_idle)


def drain(waiting: FairQueue[int], now: float = 0.0) -> list[Ticket[int]]:
    served = []
    while (one := waiting.pop(now)) is not None:
        served.append(one)
    return served


def test_an_empty_queue_gives_nothing() -> None:
    waiting = queue()
    assert waiting.pop(0.0) is None
    assert len(waiting) == 0


def test_one_tenant_of_one_priority_is_served_first_in_first_out() -> None:
    waiting = queue()
    for item in range(20):
        waiting.push(ticket(item=item, cost=20 - item), float(item))
    assert [served.item for served in drain(waiting)] == list(range(20))


def test_higher_priorities_go_first_names_and_numbers_alike() -> None:
    waiting = queue()
    for priority in (LOW, 49, NORMAL, 51, HIGH, 1):
        waiting.push(ticket(priority=priority), 0.0)
    assert [served.priority for served in drain(waiting)] == [100, 51, 50, 49, 1, 0]


def test_tenants_take_turns_however_many_calls_one_has() -> None:
    waiting = queue()
    for _ in range(10):
        waiting.push(ticket("batch"), 0.0)
    for _ in range(3):
        waiting.push(ticket("chat"), 0.0)
    order = [served.tenant for served in drain(waiting)]
    assert order[:6] == ["batch", "chat"] * 3
    assert set(order[6:]) == {"batch"}


def test_twice_the_weight_is_twice_the_share() -> None:
    waiting = queue()
    for _ in range(60):
        waiting.push(ticket("gold", weight=2.0), 0.0)
        waiting.push(ticket("iron"), 0.0)
    first = Counter(served.tenant for served in drain(waiting)[:60])
    assert first == {"gold": 40, "iron": 20}


def test_generated_tokens_count_as_much_as_input() -> None:
    waiting = queue()
    for _ in range(11):
        waiting.push(ticket("talker", cost=1), 0.0)
        waiting.push(ticket("listener", cost=1), 0.0)
    served = []
    for _ in range(12):
        one = waiting.pop(0.0)
        assert one is not None
        served.append(one.tenant)
        waiting.charge(one, 9 if one.tenant == "talker" else 0)
    assert Counter(served) == {"listener": 10, "talker": 2}


def test_silence_earns_no_credit() -> None:
    waiting = queue()
    for _ in range(100):
        waiting.push(ticket("busy", cost=10), 0.0)
    for _ in range(50):
        waiting.pop(0.0)
    for _ in range(100):
        waiting.push(ticket("quiet", cost=10), 0.0)
    assert Counter(waiting.pop(0.0).tenant for _ in range(20)) == {"busy": 10, "quiet": 10}  # type: ignore[union-attr]  # not empty


def test_a_newcomer_to_an_empty_queue_starts_where_the_last_one_left() -> None:
    waiting = queue()
    waiting.push(ticket("busy", cost=0), 0.0)
    waiting.charge(drain(waiting)[0], 500)
    for _ in range(10):
        waiting.push(ticket("quiet"), 0.0)
        waiting.push(ticket("busy"), 0.0)
    assert Counter(served.tenant for served in drain(waiting)[:10]) == {"busy": 5, "quiet": 5}


def test_debt_outlasts_a_short_absence() -> None:
    waiting = queue()
    for tenant in ("greedy", "modest", "modest", "modest"):
        waiting.push(ticket(tenant, cost=1), 0.0)
    first = waiting.pop(0.0)
    assert first is not None
    waiting.charge(first, 100)
    waiting.push(ticket("greedy"), 0.0)
    assert [served.tenant for served in drain(waiting)] == ["modest"] * 3 + ["greedy"]


def test_tokens_of_a_tenant_that_was_forgotten_still_count() -> None:
    waiting = queue()
    served = []
    for tenant in "ab":
        waiting.push(ticket(tenant, cost=0), 0.0)
        served.append(waiting.pop(0.0))
    assert served[0] is not None
    waiting.charge(served[0], 5)
    for tenant in "bba":
        waiting.push(ticket(tenant, cost=1), 0.0)
    assert [one.tenant for one in drain(waiting)] == ["b", "b", "a"]


def test_who_left_is_never_served_and_leaves_once() -> None:
    waiting = queue()
    tickets = [ticket(item=item) for item in range(4)]
    for one in tickets:
        waiting.push(one, 0.0)
    assert waiting.remove(tickets[0])
    assert waiting.remove(tickets[2])
    assert not waiting.remove(tickets[2])
    assert tickets[2] not in waiting
    assert [served.item for served in drain(waiting)] == [1, 3]
    assert not waiting.remove(tickets[1])


@pytest.mark.parametrize(
    "bad", [ticket(priority=101), ticket(priority=-1), ticket(cost=-1), ticket(weight=0), ticket(cost=float("nan"))]
)
def test_a_ticket_out_of_range_is_refused(bad: Ticket[int]) -> None:
    with pytest.raises(ValueError, match="a ticket has"):
        queue().push(bad, 0.0)


def test_a_ticket_cannot_wait_twice() -> None:
    waiting, one = queue(), ticket()
    waiting.push(one, 0.0)
    with pytest.raises(ValueError, match="waits already"):
        waiting.push(one, 0.0)


@pytest.mark.parametrize("settings_", [{"aging": 0.0}, {"aging": float("nan")}, {"aging": 1.0, "max_idle": 0}])
def test_settings_out_of_range_are_refused(settings_: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        FairQueue(**settings_)  # type: ignore[arg-type]  # on purpose


def test_what_was_charged_too_much_comes_back() -> None:
    waiting = queue()
    for number in range(6):
        waiting.push(ticket("pictures", cost=1000, item=number), 0)
        waiting.push(ticket("text", cost=10, item=number), 0)
    first = waiting.pop(0)
    assert first is not None
    assert first.tenant == "pictures"
    assert [each.tenant for each in (waiting.pop(0), waiting.pop(0)) if each] == ["text", "text"]
    waiting.charge(first, -990)  # the engine counted 10, so two of `text` are one too many
    order = []
    while (one := waiting.pop(0)) is not None:
        order.append(one.tenant)
        waiting.charge(one, 10 - one.cost)
    assert order == ["pictures", "text"] * 4 + ["pictures"]


def test_what_comes_back_counts_among_priorities_of_one_level() -> None:
    waiting = queue(aging=1.0)
    for number in range(4):
        waiting.push(ticket("old", LOW, cost=100, item=number), 0)
        waiting.push(ticket("new", NORMAL, cost=10, item=number), 0)
    order = []
    while (one := waiting.pop(100)) is not None:  # by now all are at the top
        order.append(one.tenant)
        waiting.charge(one, 10 - one.cost)
    assert abs(order[:4].count("old") - 2) <= 1
    assert len(order) == 8


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 100), st.integers(-100, 100)), max_size=60))
def test_the_tenant_with_the_least_goes_next_whatever_is_charged_and_given_back(calls: list[tuple[str, int, int]]) -> None:
    waiting, counters, running = queue(), dict.fromkeys("abc", 0.0), {}
    for tenant in "abc":  # all wait all the time, so nobody is lifted
        for _ in range(len(calls) + 1):
            waiting.push(ticket(tenant, cost=50), 0)
    for tenant, _, more in calls:
        one = waiting.pop(0)
        assert one is not None
        assert counters[one.tenant] == min(counters.values())
        counters[one.tenant] += 50
        running[one.tenant] = one
        if tenant in running:
            waiting.charge(running[tenant], more)
            counters[tenant] += more
    assert len(waiting._bands[NORMAL]._heap) <= 2 * 3 + 16


# Ageing


def test_a_priority_gains_one_class_per_aging_seconds() -> None:
    waiting = queue(aging=10.0)
    waiting.push(ticket(priority=LOW, cost=0), 0.0)
    for now, fresh, first in ((9.9, NORMAL, NORMAL), (10.1, 49, LOW)):
        waiting.push(ticket(priority=fresh), now)
        served = waiting.pop(now)
        assert served is not None
        assert served.priority == first


@pytest.mark.parametrize(("priority", "classes"), [(LOW, 2), (49, 2), (NORMAL, 1), (99, 1)])
def test_under_endless_high_load_every_priority_is_served_within_its_bound(priority: int, classes: int) -> None:
    """One call a second is served, two high ones a second come; three `low` flows wait from the start, two calls each."""
    aging = 10.0
    waiting = queue(aging=aging)
    for tenant in "xyz":
        for _ in range(2):
            waiting.push(ticket(tenant, priority), 0.0)
    served_at = []
    for second in range(100):
        for tenant in "ab":
            waiting.push(ticket(tenant, HIGH), float(second))
        served = waiting.pop(float(second))
        assert served is not None
        if served.priority == priority:
            served_at.append(second)
    promoted, flows = aging * classes, 5
    assert len(served_at) == 6
    assert min(served_at) >= promoted
    assert max(served_at) <= promoted + 2 * flows


def test_aged_work_shares_the_top_and_does_not_take_it_over() -> None:
    waiting = queue(aging=1.0)
    for _ in range(500):
        waiting.push(ticket("batch", LOW), 0.0)
    served: Counter[str] = Counter()
    for step in range(200):
        now = 100 + step * 0.01
        waiting.push(ticket("chat", HIGH), now)
        one = waiting.pop(now)
        assert one is not None
        served[one.tenant] += 1
    assert served == {"chat": 100, "batch": 100}


def test_being_held_back_earns_no_credit_to_be_spent_at_the_top() -> None:
    waiting = queue(aging=10.0)
    for _ in range(50):
        waiting.push(ticket("batch", LOW, cost=10), 0.0)
    served: Counter[str] = Counter()
    for now in [0.0] * 100 + [20.0] * 40:
        waiting.push(ticket("chat", HIGH, cost=10), now)
        one = waiting.pop(now)
        assert one is not None
        if now:
            served[one.tenant] += 1
    assert served == {"chat": 20, "batch": 20}


def test_an_old_batch_does_not_outrank_fresh_calls_of_its_own_priority() -> None:
    waiting = queue(aging=1.0)
    for _ in range(500):
        waiting.push(ticket("batch", NORMAL), 0.0)
    for step in range(50):
        now = 100.0 + step
        waiting.pop(now)
        waiting.push(ticket("chat", NORMAL), now)
        served = [waiting.pop(now), waiting.pop(now)]
        assert "chat" in {one.tenant for one in served if one is not None}


def test_a_tenant_gains_nothing_by_spreading_over_priorities() -> None:
    waiting = queue(aging=1.0)
    for priority in range(100):
        for _ in range(20):
            waiting.push(ticket("sly", priority), 0.0)
    for _ in range(1000):
        waiting.push(ticket("plain", HIGH), 0.0)
    served: Counter[str] = Counter()
    for _ in range(1000):
        one = waiting.pop(50.0)
        assert one is not None
        served[one.tenant] += 1
    assert served["sly"] <= 600


# Estimates


def test_ahead_counts_higher_levels_the_own_flow_and_the_turns_of_the_others() -> None:
    waiting = queue(aging=10.0)
    for tenant, priority, calls in (("x", HIGH, 3), ("a", NORMAL, 2), ("b", NORMAL, 9), ("y", LOW, 5)):
        for _ in range(calls):
            waiting.push(ticket(tenant, priority), 0.0)
    assert waiting.ahead(HIGH, 0.0, "x") == 3
    assert waiting.ahead(HIGH, 0.0, "new") == 1
    assert waiting.ahead(NORMAL, 0.0, "a") == 3 + 2 + 3
    assert waiting.ahead(NORMAL, 0.0, "new") == 3 + 1 + 1
    assert waiting.ahead(NORMAL, 0.0, "new", weight=0.25) == 3 + 2 + 4
    assert waiting.ahead(LOW, 0.0, "new") == 3 + 11 + 1
    assert waiting.ahead(LOW, 20.0, "new") == 4  # everything waits in the top level by now


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([LOW, 30, NORMAL, HIGH])), max_size=40), st.integers(0, 100))
def test_estimates_are_never_beyond_the_queue(calls: list[tuple[str, int]], priority: int) -> None:
    waiting = queue(aging=10.0)
    for index, call in enumerate(calls):
        waiting.push(ticket(*call), float(index))
    now = float(len(calls))
    assert 0 <= waiting.ahead(priority, now, "a") <= len(waiting)


# Order


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 100), st.integers(0, 50)), min_size=1, max_size=50))
def test_without_ageing_priorities_come_out_in_order_and_all_come_out(calls: list[tuple[str, int, int]]) -> None:
    waiting = queue()
    for index, (tenant, priority, cost) in enumerate(calls):
        waiting.push(ticket(tenant, priority, cost, index), float(index))
    served = drain(waiting, 1e6)
    assert sorted(one.item for one in served) == list(range(len(calls)))
    assert all(a.priority >= b.priority for a, b in pairwise(served))


# Memory


def test_memory_comes_back_after_many_came_and_left() -> None:
    waiting = queue(aging=10.0, max_idle=100)
    held: list[Ticket[int]] = []
    chance = random.Random(3)

    def churn(times: int) -> None:
        for index in range(times):
            one = ticket(f"tenant{index}", chance.randrange(101))
            waiting.push(one, float(index))
            held.append(one)
            if len(held) == 50:
                chance.shuffle(held)
                while held:
                    waiting.remove(held.pop())

    tracemalloc.start()
    try:
        churn(2_000)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        churn(20_000)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(waiting) == 0
    assert after - before < 500_000  # 20,000 tickets are 4 MB; threads of other tests allocate, too
    assert all(len(band._flows) <= 101 and len(band._heap) <= 20 for band in waiting._bands.values())


def test_the_counters_of_idle_tenants_are_bounded_when_each_owes() -> None:
    waiting = queue(max_idle=100)
    for index in range(5000):
        waiting.push(ticket(f"tenant{index}", cost=1), 0.0)
    while len(waiting) > 1:
        served = waiting.pop(0.0)
        assert served is not None
        waiting.charge(served, 1000)
    band = waiting._bands[NORMAL]
    assert len(band._flows) <= 103
    assert len(band._idle) <= 102
