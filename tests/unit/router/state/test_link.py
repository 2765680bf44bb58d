"""A replica's link to the store, with a store in memory that fails as the test says."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.contract.state.tally import TALLY, TallyAnswer, TallyRequest
from tests.support.links import settle

from lexora_router.state.link import NEWS_GAP_SECONDS, StateLink
from lexora_router.state.memory import InMemoryState, Store
from lexora_router.state.port import MAX_BATCH_BYTES, Answer, Batch, StateUnavailable

PROGRAMS = {"tally": TALLY, "other": TALLY}
TIMEOUT = 0.1


class Faulty(InMemoryState):
    """A store in memory. `fault`: refuse, hang, or `lose` the answer of an exchange that has run."""

    def __init__(self, store: Store | None = None) -> None:
        self.store = store or Store(PROGRAMS)
        super().__init__(self.store, lambda: time.monotonic() + self.ahead)
        self.ahead = 0.0  # of the store's clock
        self.fault = ""
        self.opened = 0
        self.batches: list[Batch] = []

    async def open(self) -> None:
        self.opened += 1
        if self.fault == "refuse":
            raise StateUnavailable("refused")

    async def exchange(self, batch: Batch) -> Answer:
        self.batches.append(batch)
        if self.fault == "refuse":
            raise StateUnavailable("refused")
        if self.fault == "bug":
            raise ValueError("words that are for the log only")
        if self.fault == "slow":
            await asyncio.sleep(TIMEOUT / 2)
        if self.fault == "hang":
            await asyncio.Event().wait()
        answer = await super().exchange(batch)
        if self.fault == "lose":
            await asyncio.Event().wait()
        return answer

    def lives(self, member: str) -> bool:
        """Whether the store has this member."""
        return member in self.store._members

    def wipe(self) -> None:
        """Lose the memory."""
        self.store = self._store = Store(PROGRAMS)


class Member:
    """A participant that reports a number, and writes down what it was called with."""

    def __init__(self, program: str = "tally", add: float = 1) -> None:
        self.program = program
        self.add: float | None = add
        self.note = ""
        self.said: list[Any] = []
        self.heard: list[TallyAnswer] = []

    def ask(self, now: float) -> TallyRequest | None:
        return None if self.add is None else TallyRequest(self.add, note=self.note)

    def hear(self, answer: TallyAnswer, now: float) -> None:
        self.heard.append(answer)

    def alone(self, share: float, now: float) -> None:
        self.said.append(share)

    def together(self, now: float, *, fresh: bool) -> None:
        self.said.append("fresh" if fresh else "again")


@pytest.fixture
def state() -> Faulty:
    return Faulty()


def linked(state: Faulty, *members: Member, replicas: int = 1, tick: float = 0.02) -> StateLink:
    link = StateLink(state, PROGRAMS, timeout=TIMEOUT, clock=time.monotonic, replicas=replicas, tick=tick, spread=lambda: 0.0)
    for member in members:
        link.join(member)
    return link


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield lines


async def test_it_is_alone_until_the_store_answers_then_together(state: Faulty) -> None:
    member = Member(add=7)
    link = linked(state, member, replicas=4)
    assert (member.said, link.degraded) == ([0.25], True)
    await link.start()
    await settle(lambda: member.heard)
    assert (member.said, link.degraded, link.members) == ([0.25, "fresh"], False, 1)
    assert member.heard[0].by == {link.member: 7}
    late = Member("other")
    link.join(late)
    await settle(lambda: late.heard)
    assert late.said == ["fresh"]
    await link.leave()


@pytest.mark.parametrize(("fault", "reason"), [("refuse", "refused"), ("hang", "no answer"), ("lose", "no answer")])
async def test_a_store_that_fails_costs_one_line_each_way(state: Faulty, logged: list[Any], fault: str, reason: str) -> None:
    member = Member()
    link, other = linked(state, member), linked(Faulty(state.store), Member())
    await link.start()
    await other.start()
    await settle(lambda: link.members == 2)
    name = link.member
    state.fault = fault
    await settle(lambda: link.degraded)
    assert reason in link.reason
    assert member.said[-1] == 0.5
    await settle(lambda: state.opened > 2)
    state.fault = ""
    await settle(lambda: not link.degraded)
    assert (member.said[-1], link.member) == ("again", name)  # it lives there: what it holds is its own
    heard = len(member.heard)
    await settle(lambda: len(member.heard) > heard)
    await link.leave()
    await other.leave()
    lines = [line["event"] for line in logged if line["event"] != "state_shared" or line["replicas"] == 2]
    assert lines.count("state_degraded") == 1


async def test_totals_are_right_after_exchanges_that_ran_and_were_not_answered(state: Faulty) -> None:
    member = Member(add=0)
    link = linked(state, member)
    await link.start()
    for round_ in range(3):
        state.fault = "lose"
        member.add = 10 * round_ + 5
        await settle(lambda: link.degraded)
        member.add = 10 * round_ + 10
        state.fault = ""
        await settle(lambda: member.heard and member.heard[-1].total == member.add)
    numbers = [batch.number for batch in state.batches]
    assert numbers == sorted(set(numbers))
    await link.leave()


@pytest.mark.parametrize("how", ["wiped", "given up"])
async def test_a_member_that_was_forgotten_is_another_one(state: Faulty, how: str) -> None:
    member = Member(add=3)
    link = linked(state, member)
    await link.start()
    await settle(lambda: member.heard)
    before = link.member
    if how == "wiped":
        state.wipe()
    else:
        state.ahead += 60
    assert await link.exchanged() is True  # a call that waits then is answered by the new memory
    assert link.member != before
    assert member.said[-1] == "fresh"
    assert member.heard[-1].by == {link.member: 3}
    assert not link.degraded
    await link.leave()


async def test_a_call_waits_for_the_timeout_at_most_and_not_at_all_without_a_store(state: Faulty) -> None:
    link = linked(state, Member(add=None), tick=60)
    await link.start()
    assert await asyncio.gather(*(link.exchanged() for _ in range(50))) == [True] * 50
    assert len(state.batches) <= 4  # they share an exchange
    state.fault = "hang"
    assert await asyncio.gather(*(link.exchanged() for _ in range(50))) == [False] * 50
    assert await link.exchanged() is False
    await settle(lambda: link.degraded)
    begun = time.monotonic()
    assert [await link.exchanged() for _ in range(100)] == [False] * 100
    assert time.monotonic() - begun < TIMEOUT
    await link.leave()


async def test_a_storm_of_news_is_no_storm_of_exchanges(state: Faulty) -> None:
    link = linked(state, Member(add=None), tick=60)
    await link.start()
    await settle(lambda: len(state.batches) >= 2)
    before, begun = len(state.batches), time.monotonic()
    for _ in range(2000):
        state._tell({"tally"}, "another")
        await asyncio.sleep(0)
        if time.monotonic() - begun > 0.3:
            break
    await asyncio.sleep(0.05)
    exchanges = len(state.batches) - before
    assert 1 <= exchanges <= (time.monotonic() - begun) / NEWS_GAP_SECONDS + 1
    before = len(state.batches)
    state._tell({"unheard of"}, "another")
    state._tell({"tally"}, link.member)
    await asyncio.sleep(3 * NEWS_GAP_SECONDS)
    assert len(state.batches) == before
    await link.leave()


async def test_the_more_replicas_the_less_often_each_one_asks(state: Faulty) -> None:
    link = linked(state, tick=0.1)
    await link.start()
    gaps = []
    for link.members in (3, 10, 100, 1000):
        link._waiting, link._wanted, link._next_tick = None, False, 0.1
        tick = link._gap()
        link._wanted = True
        gaps.append((round(tick, 3), round(link._gap(), 3)))
    assert gaps == [(0.1, 0.01), (0.1, 0.01), (0.1, 0.1), (1.0, 1.0)]
    await link.leave()


async def test_a_bug_of_the_client_ends_nothing(state: Faulty, logged: list[Any]) -> None:
    member = Member()
    link = linked(state, member)
    await link.start()
    state.fault = "bug"
    await settle(lambda: link.degraded)
    assert link.reason == "internal error; the log has it"
    state.fault = ""
    await settle(lambda: not link.degraded)
    assert [line["event"] for line in logged].count("state_degraded") == 1
    await link.leave()


async def test_an_exchange_under_way_ends_before_the_replica_leaves(state: Faulty, logged: list[Any]) -> None:
    member = Member()
    link = linked(state, member)
    await link.start()
    await settle(lambda: not link.degraded)
    state.fault = "slow"
    under_way = len(state.batches) + 1
    await settle(lambda: len(state.batches) == under_way)
    assert state.lives(link.member)
    await link.leave()
    assert not state.lives(link.member)
    assert all(line["event"] != "state_degraded" for line in logged)


async def test_a_bug_of_one_participant_is_no_end_for_the_others(state: Faulty, logged: list[Any]) -> None:
    bad, good = Member("other"), Member()
    bad.hear = bad.ask = None  # type: ignore[assignment,method-assign]
    link = linked(state, bad, good)
    await link.start()
    await settle(lambda: len(good.heard) > 2)
    assert not link.degraded
    assert {line["event"] for line in logged} >= {"bug"}
    await link.leave()


async def test_what_does_not_fit_is_said_in_the_next_exchange(state: Faulty) -> None:
    members = [Member() for _ in range(5)]
    for member in members:
        member.note = "x" * (MAX_BATCH_BYTES // 3)
    link = linked(state, *members, tick=60)
    await link.start()
    await settle(lambda: all(member.heard for member in members))
    assert max(sum(len(ask.request) for ask in batch.asks) for batch in state.batches) <= MAX_BATCH_BYTES
    await link.leave()


async def test_a_lost_store_is_tried_ever_more_seldom(state: Faulty) -> None:
    state.fault = "refuse"
    link = linked(state)
    await link.start()
    await settle(lambda: state.opened >= 4)
    assert link._warned
    assert [link._backoff() for link._failures in (1, 2, 3, 4, 5, 6, 60)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    await link.leave()


async def test_at_the_end_it_says_its_last_totals_and_leaves(state: Faulty) -> None:
    member, watcher = Member(add=1), Member()
    link, other = linked(state, member, tick=60), linked(Faulty(state.store), watcher)
    await link.start()
    await other.start()
    member.add = 9
    await link.leave()
    assert member.heard[-1].by[link.member] == 9
    await settle(lambda: other.members == 1)
    await other.leave()
    state.fault = "hang"
    third = linked(state)
    await third.start()
    await third.leave()  # at once: nothing is given back to a store that does not answer
