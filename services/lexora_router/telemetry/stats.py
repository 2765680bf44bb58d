"""Counters since the start and distributions of the last minutes, for /stats and GetStats."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, structs

from lexora_router.call import Call
from lexora_router.telemetry.account import MAX_MODELS, CallRecord
from lexora_router.telemetry.counts import Counts, CountsByName, CountsByRecentName
from lexora_router.telemetry.windows import WindowCounts, Windows

MAX_TENANTS = 200
# Of paths, backends and endpoints: configured or discovered, and bounded, because new ones may come for ever.
MAX_NAMES = 1000
# So many kinds of calls are counted apart before they are entered under their names.
MAX_KINDS = 1000

# Path, label of the model, tenant, backend and endpoint's address.
Kind = tuple[str, str, str, str, str]


class StatsCounts(Struct, array_like=True):
    """All that was counted, as data. `active` alone goes down again."""

    active: int
    seconds: float
    retries: int
    fallbacks: int
    resumed: int
    errors: dict[str, int]
    rejected: dict[str, int]
    wasted: dict[str, int]
    all: Counts
    by_path: dict[str, Counts]
    by_model: dict[str, Counts]
    by_tenant: dict[str, Counts]
    by_backend: dict[str, Counts]
    by_endpoint: dict[str, Counts]
    windows: WindowCounts

    def left(self) -> "StatsCounts":
        """What is left of it when the process has ended."""
        return structs.replace(self, active=0)


_NUMBERS = ("active", "seconds", "retries", "fallbacks", "resumed")
_REASONS = ("errors", "rejected", "wasted")
_NAMES = ("by_path", "by_model", "by_tenant", "by_backend", "by_endpoint")


class Totals:
    """What finished calls came to, in all and under each name."""

    def __init__(self) -> None:
        self.all = Counts()
        self.by_path = CountsByName(MAX_NAMES)
        self.by_model = CountsByName(MAX_MODELS)
        self.by_tenant = CountsByName(MAX_TENANTS)
        self.by_backend = CountsByName(MAX_NAMES)
        self.by_endpoint = CountsByRecentName(MAX_NAMES)

    @property
    def success_rate(self) -> float:
        """Share of finished calls that succeeded, cancelled ones left out; 1 before the first."""
        judged = self.all.total - self.all.cancelled
        return self.all.successful / judged if judged else 1.0

    def enter(self, kind: Kind, counts: Counts) -> None:
        """Count calls of one kind. Endpoints are "backend/address", for several backends may have the same address."""
        path, model, tenant, backend, address = kind
        places = [self.all, self.by_path[path], self.by_model[model], self.by_tenant[tenant]]
        if backend:
            places.append(self.by_backend[backend])
        if address:
            self.by_endpoint.add(f"{backend}/{address}", counts)
        for place in places:
            place.merge(counts)


class Stats:
    """The book that counts. `now` is the instant of the start, in seconds.

    A call is counted once, among those of its kind; the totals are made of that when they are read.
    """

    def __init__(self, now: float) -> None:
        self.active = 0
        self.seconds = 0.0
        self.retries = self.fallbacks = self.resumed = 0
        self.errors: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.wasted: Counter[str] = Counter()
        self.windows = Windows(now)
        self._totals = Totals()
        self._kinds: dict[Kind, Counts] = {}  # since the totals were made

    def begin(self, call: Call) -> None:
        """One more under way."""
        self.active += 1

    def end(self, record: CallRecord) -> None:
        """One less under way, one more finished."""
        self.active -= 1
        self.seconds += record.seconds
        receipt, failed = record.receipt, record.failed
        self.windows.end(record.call, failed=failed)
        kind = (record.path, record.label, record.tenant, receipt.backend, receipt.endpoint)
        (self._kinds.get(kind) or self._keep(kind)).add(receipt.usage, failed=failed, cancelled=record.cancelled)
        if not record.straight:
            self._count_troubles(record)

    @property
    def totals(self) -> Totals:
        """What all finished calls came to."""
        for kind, counts in self._kinds.items():
            self._totals.enter(kind, counts)
        self._kinds.clear()
        return self._totals

    @property
    def counts(self) -> StatsCounts:
        """All that was counted, as data."""
        totals = self.totals
        numbers: dict[str, Any] = {name: getattr(self, name) for name in _NUMBERS}
        reasons: dict[str, Any] = {name: dict(getattr(self, name)) for name in _REASONS}
        by_name: dict[str, Any] = {name: dict(getattr(totals, name)) for name in _NAMES}
        return StatsCounts(**numbers, **reasons, all=totals.all, **by_name, windows=self.windows.counts)

    @classmethod
    def of(cls, parts: Sequence[StatsCounts], now: float) -> "Stats":
        """Statistics that have counted what all of these have."""
        made = cls(now)
        for part in parts:
            for name in _NUMBERS:
                setattr(made, name, getattr(made, name) + getattr(part, name))
            for name in _REASONS:
                getattr(made, name).update(getattr(part, name))
            made._totals.all.merge(part.all)
            for name in _NAMES:
                getattr(made._totals, name).merge(getattr(part, name))
        made.windows = Windows.of([part.windows for part in parts], now)
        return made

    def _keep(self, kind: Kind) -> Counts:
        if len(self._kinds) >= MAX_KINDS:
            _ = self.totals
        counts = self._kinds[kind] = Counts()
        return counts

    def _count_troubles(self, record: CallRecord) -> None:
        """What did not go straight; an ordinary call does not come here."""
        self.retries += record.retries
        self.fallbacks += len(record.receipt.hops)
        self.resumed += bool(record.receipt.resumed)
        if record.reason:
            self.errors[record.reason] += 1
        if record.rejection:
            self.rejected[record.rejection] += 1
        self.wasted.update(record.wasted)
