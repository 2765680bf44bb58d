"""What one of several workers counts: asked for by the others, left to them at its end, joined with theirs for a scraper."""

import time
from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from lexora_router.telemetry.merged_metrics import Family, Joined, collected, joined, left, of_worker
from lexora_router.telemetry.stats import Stats, StatsCounts
from lexora_router.workers.hub import Part
from lexora_router.workers.link import WorkerLink

METRICS = "metrics"


class _Left(Struct, array_like=True):
    """What a worker leaves when it ends."""

    metrics: list[Family]
    stats: StatsCounts | None


class WorkerCounts:
    """The counts of one worker and of those that have ended before; `link` leads to the others."""

    def __init__(self, registry: CollectorRegistry, link: WorkerLink) -> None:
        self._registry = registry
        self._link = link
        self._metrics: list[Family] = []  # of workers that have ended
        self._stats: StatsCounts | None = None
        self._all_stats: Callable[[], StatsCounts | None] = lambda: None
        link.answer(METRICS, self._answer)
        link.count(self.left, self.adopt)

    def inherited_stats(self) -> StatsCounts | None:
        """Statistics of workers that have ended."""
        return self._stats

    def with_stats(self, stats: Callable[[], StatsCounts]) -> None:
        """Leave these statistics, too; they have the inherited ones in them."""
        self._all_stats = stats

    def left(self) -> bytes:
        """What this worker leaves if it ends now."""
        return self._left_of(collected(self._registry.collect))

    def _left_of(self, own: list[Family]) -> bytes:
        stats = self._all_stats()
        metrics = joined([left(own), self._metrics])
        return msgspec.msgpack.encode(_Left(metrics, None if stats is None else stats.left()))

    def adopt(self, counts: bytes) -> None:
        """Take over what another one has left. Raises msgspec.MsgspecError for what it is not."""
        found = msgspec.msgpack.decode(counts, type=_Left)
        self._metrics = joined([self._metrics, found.metrics])
        if found.stats is not None:
            both = [found.stats] if self._stats is None else [self._stats, found.stats]
            self._stats = Stats.of(both, time.monotonic()).counts

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """The metrics of all workers and their content type, for an Accept header."""
        parts = await self._link.ask(METRICS)
        others = [msgspec.msgpack.decode(part.body, type=list[Family]) for part in parts if part.body is not None]
        encode, content_type = choose_encoder(accept)
        families = joined([self._own(), *others, collected(lambda: self._of_workers(parts))])
        return encode(Joined(families)), content_type

    def _own(self) -> list[Family]:
        """What a scraper gets. It is left with the supervisor, too: no sum goes down when this worker dies after that."""
        own = collected(self._registry.collect)
        self._link.keep(self._left_of(own))
        return joined([of_worker(own, self._link.number), self._metrics])

    async def _answer(self, _: bytes) -> bytes:
        return msgspec.msgpack.encode(self._own())

    def _of_workers(self, parts: list[Part]) -> Iterable[Metric]:
        up = GaugeMetricFamily(
            "lexora_worker_up", "1 for a worker that has answered: it is in these metrics.", labels=["worker"]
        )
        states = {str(part.worker): part.body is not None for part in parts} | {str(self._link.number): True}
        for number, answered in sorted(states.items()):
            up.add_metric([number], answered)
        return [up]
