"""What a router of several workers says of itself: each question is put to all of them, and their answers are joined."""

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

import msgspec
from msgspec import Struct

from lexora.v1 import health_pb2, recent_calls_pb2, stats_pb2
from lexora_router.edge.introspection import DEFAULT_RECENT, Overview
from lexora_router.edge.joined_messages import joined_gauges, joined_health
from lexora_router.edge.pages import after, page, page_size
from lexora_router.edge.stats_messages import stats_message
from lexora_router.errors import InvalidRequest
from lexora_router.telemetry.recent import KEPT
from lexora_router.telemetry.stats import Stats, StatsCounts
from lexora_router.workers.hub import Part

HEALTH, STATS, RECENT = "health", "stats", "recent"


class Others(Protocol):
    """The other workers of a router, by the link to them; `number` is this one's."""

    number: int

    def answer(self, name: str, answer: Callable[[bytes], Awaitable[bytes]], /) -> None:
        """Answer their questions of this name with that."""

    async def ask(self, name: str, body: bytes = b"", /) -> list[Part]:
        """Ask all of them, for a bounded time."""
        ...


class _Health(Struct, array_like=True):
    active: int
    message: bytes


class _Stats(Struct, array_like=True):
    counts: StatsCounts
    gauges: bytes  # a message that has what is not counted


# When it finished by the monotonic clock, which the processes of a machine share; its number in its worker; the worker.
_Place = tuple[float, int, int]


class _Recent(Struct, array_like=True):
    calls: list[tuple[_Place, bytes]]


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
        if others is not None:
            others.answer(HEALTH, self._answer_health)
            others.answer(STATS, self._answer_stats)
            others.answer(RECENT, self._answer_recent)

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
        if self._others is None:
            return self._own.recent_calls(request)
        size, last = page_size(request.page_size, default=DEFAULT_RECENT, most=KEPT), _place(after(request.page_token))
        parts = await self._others.ask(RECENT)
        found = [msgspec.msgpack.decode(part.body, type=_Recent) for part in parts if part.body is not None]
        calls = sorted((call for each in (self._recent(), *found) for call in each.calls), reverse=True)[:KEPT]
        older = (call for call in calls if last is None or call[0] < last)
        shown, token = page(older, size, lambda call: tuple(map(repr, call[0])))
        messages = [recent_calls_pb2.RecentCall.FromString(message) for _, message in shown]
        return recent_calls_pb2.ListRecentCallsResponse(recent_calls=messages, next_page_token=token)

    def _recent(self) -> _Recent:
        number = self._others.number if self._others is not None else 0
        calls = self._own.finished()
        return _Recent([((at, count, number), message.SerializeToString()) for at, count, message in calls])

    async def _answer_health(self, _: bytes) -> bytes:
        message = await self._own.health(draining=False)  # one that leaves serves on
        return msgspec.msgpack.encode(_Health(self._own.active, message.SerializeToString()))

    async def _answer_stats(self, _: bytes) -> bytes:
        return msgspec.msgpack.encode(_Stats(self.counts(), self._own.gauges().SerializeToString()))

    async def _answer_recent(self, _: bytes) -> bytes:
        return msgspec.msgpack.encode(self._recent())


_Known = tuple[int, int, health_pb2.HealthResponse | stats_pb2.GetStatsResponse, int]


def _workers(parts: Iterable[Part], known: Sequence[_Known]) -> list[health_pb2.Worker]:
    """All workers, those included that have not answered; `known` has number, id, message and calls under way of the others."""
    silent = [health_pb2.Worker(number=part.worker, pid=part.pid) for part in parts if part.body is None]
    answered = [
        health_pb2.Worker(number=number, pid=pid, answered=True, uptime=message.uptime, active_calls=active)
        for number, pid, message, active in known
    ]
    return sorted([*silent, *answered], key=lambda worker: (worker.number, worker.pid))


def _place(key: tuple[str, ...] | None) -> _Place | None:
    """The place of the last call that was shown."""
    if key is None:
        return None
    try:
        at, number, worker = key
        return float(at), int(number), int(worker)
    except ValueError:
        raise InvalidRequest("page_token is of another list.", "page_token") from None
