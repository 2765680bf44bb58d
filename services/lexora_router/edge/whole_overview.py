"""What a router of several workers says of itself: each question is put to all of them, and their answers are joined."""

import os
from collections.abc import Callable, Iterable, Sequence

import msgspec
from msgspec import Struct

from lexora.v1 import health_pb2, recent_calls_pb2, stats_pb2
from lexora_router.edge.introspection import DEFAULT_RECENT, Overview
from lexora_router.edge.joined_messages import joined_gauges, joined_health
from lexora_router.edge.pages import page_size
from lexora_router.edge.stats_messages import stats_message
from lexora_router.edge.whole_list import Others, WholeList
from lexora_router.telemetry.recent import KEPT
from lexora_router.telemetry.stats import Stats, StatsCounts
from lexora_router.workers.hub import Part

HEALTH, STATS, RECENT = "health", "stats", "recent"


class _Health(Struct, array_like=True):
    active: int
    message: bytes


class _Stats(Struct, array_like=True):
    counts: StatsCounts
    gauges: bytes  # a message that has what is not counted


class WholeOverview:
    """An overview of all workers, or of this process if it is the only one.

    `inherited` gives what workers have counted that have ended.
    """

    def __init__(
        self, own: Overview, others: Others | None = None, inherited: Callable[[], StatsCounts | None] = lambda: None
    ) -> None:
        self._own = own
        self._others = others
        self._inherited = inherited
        self._recent = None if others is None else WholeList(RECENT, own.finished, others, KEPT)
        if others is not None:
            others.answer(HEALTH, self._answer_health)
            others.answer(STATS, self._answer_stats)

    def counts(self) -> StatsCounts:
        """What this worker has counted, and what it has inherited."""
        own, inherited = self._own.counts(), self._inherited()
        return own if inherited is None else Stats.of([own, inherited], self._own.now()).counts

    async def health(self, *, draining: bool) -> health_pb2.HealthResponse:
        """State of each backend, as all workers see it."""
        own = await self._own.health(draining=draining)
        if self._others is None:
            return own
        parts = await self._others.ask(HEALTH)
        found = [(part, msgspec.msgpack.decode(part.body, type=_Health)) for part in parts if part.body is not None]
        messages = {part: health_pb2.HealthResponse.FromString(each.message) for part, each in found}
        whole = joined_health([own, *messages.values()])
        known = [(part.worker, part.pid, messages[part], each.active) for part, each in found]
        whole.workers.extend(_workers(parts, [(self._others.number, os.getpid(), own, self._own.active), *known]))
        return whole

    async def stats(self) -> stats_pb2.GetStatsResponse:
        """Counters since the start, distributions of the last minutes, gauges of now."""
        if self._others is None:
            return self._own.stats()
        parts = await self._others.ask(STATS)
        found = [(part, msgspec.msgpack.decode(part.body, type=_Stats)) for part in parts if part.body is not None]
        counts, gauges = self.counts(), self._own.gauges()
        messages = {part: stats_pb2.GetStatsResponse.FromString(each.gauges) for part, each in found}
        whole = stats_message(
            Stats.of([counts, *(each.counts for _, each in found)], self._own.now()), self._own.now(), self._own.wall()
        )
        whole.MergeFrom(joined_gauges([gauges, *messages.values()]))
        known = [(part.worker, part.pid, messages[part], each.counts.active) for part, each in found]
        whole.workers.extend(_workers(parts, [(self._others.number, os.getpid(), gauges, counts.active), *known]))
        return whole

    async def recent_calls(self, request: recent_calls_pb2.ListRecentCallsRequest) -> recent_calls_pb2.ListRecentCallsResponse:
        """The calls that finished last, the latest first, a page at a time. Raises InvalidRequest."""
        if self._recent is None:
            return self._own.recent_calls(request)
        size = page_size(request.page_size, default=DEFAULT_RECENT, most=KEPT)
        shown, token = await self._recent.page(size, request.page_token)
        messages = [recent_calls_pb2.RecentCall.FromString(message) for message in shown]
        return recent_calls_pb2.ListRecentCallsResponse(recent_calls=messages, next_page_token=token)

    async def _answer_health(self, _: bytes) -> bytes:
        message = await self._own.health(draining=False)  # one that leaves serves on
        return msgspec.msgpack.encode(_Health(self._own.active, message.SerializeToString()))

    async def _answer_stats(self, _: bytes) -> bytes:
        return msgspec.msgpack.encode(_Stats(self.counts(), self._own.gauges().SerializeToString()))


_Known = tuple[int, int, health_pb2.HealthResponse | stats_pb2.GetStatsResponse, int]


def _workers(parts: Iterable[Part], known: Sequence[_Known]) -> list[health_pb2.Worker]:
    """All workers, those included that have not answered; `known` has number, id, message and calls under way of the others."""
    silent = [health_pb2.Worker(number=part.worker, pid=part.pid) for part in parts if part.body is None]
    answered = [
        health_pb2.Worker(number=number, pid=pid, answered=True, uptime=message.uptime, active_calls=active)
        for number, pid, message, active in known
    ]
    return sorted([*silent, *answered], key=lambda worker: (worker.number, worker.pid))
