"""Counters since the start and distributions of the last minutes, for /stats and GetStats."""

from collections import Counter

from lexora_router.call import Call
from lexora_router.telemetry.account import MAX_MODELS, CallRecord
from lexora_router.telemetry.counts import Counts, CountsByName
from lexora_router.telemetry.windows import Windows

MAX_TENANTS = 200
# Of paths, backends and endpoints: configured, and bounded all the same, because reloads may bring new ones for ever.
MAX_NAMES = 1000


class Stats:
    """The book that counts. `now` is the instant of the start, in seconds."""

    def __init__(self, now: float) -> None:
        self.active = 0
        self.seconds = 0.0
        self.retries = self.fallbacks = self.resumed = 0
        self.all = Counts()
        self.by_path = CountsByName(MAX_NAMES)
        self.by_model = CountsByName(MAX_MODELS)
        self.by_tenant = CountsByName(MAX_TENANTS)
        self.by_backend = CountsByName(MAX_NAMES)
        self.by_endpoint = CountsByName(MAX_NAMES)
        self.errors: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.wasted: Counter[str] = Counter()
        self.windows = Windows(now)

    def begin(self, call: Call) -> None:
        """One more under way."""
        self.active += 1

    def end(self, record: CallRecord) -> None:
        """One less under way, one more finished."""
        self.active -= 1
        self.seconds += record.seconds
        usage, failed, cancelled = record.receipt.usage, record.failed, record.cancelled
        self.windows.end(record.call, failed=failed)
        for counts in self._places(record):
            counts.add(usage, failed=failed, cancelled=cancelled)
        if not record.straight:
            self._count_troubles(record)

    def _places(self, record: CallRecord) -> list[Counts]:
        places = [self.all, self.by_path[record.path], self.by_model[record.label], self.by_tenant[record.call.tenant]]
        if record.receipt.backend:
            places.append(self.by_backend[record.receipt.backend])
        if record.endpoint:
            places.append(self.by_endpoint[record.endpoint])
        return places

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

    @property
    def success_rate(self) -> float:
        """Share of finished calls that succeeded, cancelled ones left out; 1 before the first."""
        judged = self.all.total - self.all.cancelled
        return self.all.successful / judged if judged else 1.0
