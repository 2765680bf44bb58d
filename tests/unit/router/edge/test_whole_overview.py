"""Several workers are asked as one; what they say together is what one process would say that had served all calls."""

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from tests.unit.router.support import make_call

from lexora.v1 import health_pb2, recent_calls_pb2, stats_pb2
from lexora_contract.answer import Usage
from lexora_router.assembly import Assembly
from lexora_router.config import Config
from lexora_router.edge.introspection import Overview
from lexora_router.edge.joined_messages import joined_gauges, joined_health
from lexora_router.edge.whole_overview import WholeOverview
from lexora_router.errors import InvalidRequest, QueueFull
from lexora_router.telemetry.account import CallRecord
from lexora_router.telemetry.recent import RecentCalls
from lexora_router.telemetry.reloads import ReloadLog
from lexora_router.telemetry.stats import Stats, StatsCounts
from lexora_router.workers.hub import Part

START = 1000.0
HEALTHY, DEGRADED, UNHEALTHY, UNKNOWN = (
    health_pb2.BACKEND_STATUS_HEALTHY,
    health_pb2.BACKEND_STATUS_DEGRADED,
    health_pb2.BACKEND_STATUS_UNHEALTHY,
    health_pb2.BACKEND_STATUS_UNSPECIFIED,
)


class Clock:
    now = START

    def __call__(self) -> float:
        return self.now


class Prober:
    async def first_round(self) -> None:
        """At once."""


class Others:
    """The links of some workers to each other; those in `silent` do not answer."""

    def __init__(self, number: int, all_of_them: "list[Others]", silent: set[int]) -> None:
        self.number = number
        self._all = all_of_them
        self._silent = silent
        self._answers: dict[str, Callable[[bytes], Awaitable[bytes]]] = {}
        all_of_them.append(self)

    def answer(self, name: str, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._answers[name] = answer

    async def ask(self, name: str, body: bytes = b"") -> list[Part]:
        others = [each for each in self._all if each is not self]
        return [
            Part(each.number, 100 + each.number, None if each.number in self._silent else await each._answers[name](body))
            for each in others
        ]


class Worker:
    """One process: its books and its overview."""

    def __init__(self, clock: Clock, others: Others | None) -> None:
        self.stats, self.recent = Stats(START), RecentCalls()
        self.inherited: StatsCounts | None = None
        assembly = SimpleNamespace(
            backends={}, prober=Prober(), config=Config(), health=lambda: SimpleNamespace, routes=SimpleNamespace()
        )
        own = Overview(
            lambda: cast("Assembly", assembly),
            self.stats,
            self.recent,
            ReloadLog(),
            clock=clock,
            wall_clock=lambda: clock() + 1e6,
        )
        self.view = WholeOverview(own, others, lambda: self.inherited)

    def end(self, record: CallRecord) -> None:
        self.stats.begin(record.call)
        self.stats.end(record)
        self.recent.end(record)


def calls(count: int) -> list[CallRecord]:
    """Of five minutes and more; durations are sums of powers of two, which have no rounding."""
    dice, found = Random(3), []
    instants = sorted(START + dice.randrange(64 * 420) / 64 for _ in range(count))
    for number, at in enumerate(instants):
        took = dice.randrange(1, 640) / 64
        call = make_call(id=f"call-{number}", started=at - took, user=dice.choice("abc"), model=dice.choice("mn"))
        receipt = call.receipt
        receipt.backend, receipt.endpoint, receipt.attempts = dice.choice(["x", "y"]), "http://e:1", dice.randrange(1, 3)
        receipt.dispatched_at, receipt.first_event_at, receipt.finished_at = at - took * 0.5, at - took * 0.25, at
        receipt.usage = Usage(dice.randrange(9), dice.randrange(9), dice.randrange(3))
        error = QueueFull("x", 1.0) if dice.random() < 0.2 else None
        found.append(CallRecord(call, 429 if error else 200, error, call.model))
    return found


def together(clock: Clock, count: int, silent: set[int] | None = None) -> list[Worker]:
    links: list[Others] = []
    return [Worker(clock, Others(number + 1, links, silent or set())) for number in range(count)]


async def test_statistics_are_those_of_one_process_that_served_all_calls() -> None:
    clock, dice = Clock(), Random(5)
    alone, workers = Worker(clock, None), together(clock, 3)
    gone = Worker(clock, None)  # it served for the first half, and its counts went to another one
    records = calls(300)
    for number, record in enumerate(records):
        clock.now = record.receipt.finished_at
        alone.end(record)
        (gone if number < 150 and number % 3 == 0 else dice.choice(workers)).end(record)
    workers[1].inherited = msgspec.msgpack.decode(msgspec.msgpack.encode(gone.stats.counts.left()), type=StatsCounts)
    for later in (0.0, 35.0, 1000.0):
        clock.now += later
        expected = await alone.view.stats()
        for worker in workers:
            found = await worker.view.stats()
            assert [(each.number, each.answered) for each in found.workers] == [(1, True), (2, True), (3, True)]
            found.ClearField("workers")
            assert found == expected


async def test_one_that_is_silent_is_left_out_and_named() -> None:
    clock = Clock()
    workers = together(clock, 3, silent={2})
    for worker, record in zip(workers, calls(3), strict=True):
        worker.end(record)
    clock.now += 500
    for worker in (workers[0], workers[2]):
        found = await worker.view.stats()
        assert found.calls.total == 2
        assert [(each.number, each.answered) for each in found.workers] == [(1, True), (2, False), (3, True)]


async def test_recent_calls_of_all_come_in_pages_the_latest_first() -> None:
    clock, dice = Clock(), Random(7)
    workers = together(clock, 3)
    records = calls(90)
    for record in records:
        dice.choice(workers).end(record)
    clock.now = START + 500
    shown, token = list[str](), ""
    while len(shown) < len(records):  # each page by another worker
        request = recent_calls_pb2.ListRecentCallsRequest(page_size=17, page_token=token)
        page = await dice.choice(workers).view.recent_calls(request)
        shown += [call.request_id for call in page.recent_calls]
        token = page.next_page_token
    finished = {record.call.id: record.receipt.finished_at for record in records}
    assert token == ""
    assert sorted(shown) == sorted(finished)
    assert [finished[each] for each in shown] == sorted(finished.values(), reverse=True)
    for bad in ("x", "bW9kZWwAbQ==", "YQBiAGM="):
        with pytest.raises(InvalidRequest, match="page_token"):
            await workers[0].view.recent_calls(recent_calls_pb2.ListRecentCallsRequest(page_token=bad))


def health(*states: health_pb2.BackendStatus.ValueType) -> list[health_pb2.HealthResponse]:
    return [
        health_pb2.HealthResponse(
            status=state,
            backends={
                "main": health_pb2.BackendHealth(
                    status=state,
                    waiting=1,
                    endpoints=[
                        health_pb2.EndpointHealth(
                            address="http://e:1", status=state, in_flight=2, limit=8, available=state == HEALTHY
                        )
                    ],
                )
            },
        )
        for state in states
    ]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ((HEALTHY, HEALTHY), HEALTHY),
        ((HEALTHY, UNHEALTHY), DEGRADED),
        ((UNHEALTHY, UNHEALTHY), UNHEALTHY),
        ((UNKNOWN, HEALTHY), HEALTHY),
        ((UNKNOWN, UNKNOWN), UNKNOWN),
        ((DEGRADED, HEALTHY), DEGRADED),
    ],
)
def test_what_workers_see_differently_is_degraded(
    states: Sequence[health_pb2.BackendStatus.ValueType], expected: health_pb2.BackendStatus.ValueType
) -> None:
    whole = joined_health(health(*states))
    endpoint = whole.backends["main"].endpoints[0]
    assert (whole.status, whole.backends["main"].status, endpoint.status) == (expected, expected, expected)
    assert (whole.backends["main"].waiting, endpoint.in_flight, endpoint.limit) == (2, 4, 16)
    assert endpoint.available == all(state == HEALTHY for state in states)


def test_gauges_are_added_up_as_the_parts_of_limits_are() -> None:
    parts = [
        stats_pb2.GetStatsResponse(
            waiting={"main": number},
            endpoints={
                "http://e:1": stats_pb2.EndpointLoad(in_flight=number, limit=8, breaker=health_pb2.BREAKER_STATE_CLOSED)
            },
            state=health_pb2.SharedState(shared=number != 2, reason="" if number != 2 else "it is gone"),
        )
        for number in (1, 2, 3)
    ]
    whole = joined_gauges(parts)
    load = whole.endpoints["http://e:1"]
    assert (whole.waiting["main"], load.in_flight, load.limit) == (6, 6, 24)
    assert (whole.state.shared, whole.state.reason) == (False, "it is gone")


def test_a_source_of_endpoints_is_shown_as_the_worker_has_it_that_is_worst_off() -> None:
    well = health_pb2.Discovery(source="file e.json", endpoints=3, failures=1, since_success={"nanos": 5})
    worse = health_pb2.Discovery(source="file e.json", endpoints=2, failures=4, problem="gone", since_success={"seconds": 9})
    whole = health_pb2.Discovery(source="file e.json", endpoints=3, failures=5, problem="gone", since_success={"seconds": 9})
    for parts in ((well, worse), (worse, well)):
        healths = [health_pb2.HealthResponse(backends={"main": {"discovery": part}}) for part in parts]
        assert joined_health(healths).backends["main"].discovery == whole
        gauges = [stats_pb2.GetStatsResponse(discovery={"main": part}) for part in parts]
        assert joined_gauges(gauges).discovery["main"] == whole
    apart = [health_pb2.HealthResponse(backends={"main": {}})] * 2
    assert not joined_health(apart).backends["main"].HasField("discovery")
