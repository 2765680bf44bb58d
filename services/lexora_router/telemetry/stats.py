"""Counters since the start and distributions of the last minutes, for /stats and GetStats."""

from collections import Counter
from collections.abc import Callable

from lexora_router.call import Call
from lexora_router.layers.observe import CLIENT_GONE
from lexora_router.telemetry.account import MAX_MODELS, endpoint_of, hops, path_of, reason, rejection, retries, straight, wasted
from lexora_router.telemetry.counts import Counts, CountsByName
from lexora_router.telemetry.windows import Windows

MAX_TENANTS = 200
# Of paths, backends and endpoints: configured, and bounded all the same, because reloads may bring new ones for ever.
MAX_NAMES = 1000


class Stats:
    """A recorder that counts. `label` gives the name that a model counts as; `now` is the instant of the start, in seconds."""

    def __init__(self, label: Callable[[str], str], now: float) -> None:
        self._label = label
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

    def end(self, call: Call, status: int, error: BaseException | None) -> None:
        """One less under way, one more finished."""
        self.active -= 1
        receipt = call.receipt
        self.seconds += receipt.finished_at - call.started
        cancelled = status == CLIENT_GONE
        failed = error is not None and not cancelled
        self.windows.end(call, failed=failed)
        for counts in self._places(call):
            counts.add(receipt.usage, failed=failed, cancelled=cancelled)
        if not straight(receipt, error):
            self._count_troubles(call, status, error)

    def _places(self, call: Call) -> list[Counts]:
        receipt = call.receipt
        places = [self.all, self.by_path[path_of(call)], self.by_model[self._label(call.model)], self.by_tenant[call.tenant]]
        if receipt.backend:
            places.append(self.by_backend[receipt.backend])
        if receipt.endpoint:
            places.append(self.by_endpoint[endpoint_of(receipt)])
        return places

    def _count_troubles(self, call: Call, status: int, error: BaseException | None) -> None:
        """What did not go straight; an ordinary call does not come here."""
        receipt = call.receipt
        self.retries += retries(receipt)
        self.fallbacks += len(hops(receipt))
        self.resumed += bool(receipt.resumed)
        if word := reason(error):
            self.errors[word] += 1
        if word := rejection(error):
            self.rejected[word] += 1
        self.wasted.update(wasted(receipt, status, error))

    @property
    def success_rate(self) -> float:
        """Share of finished calls that succeeded, cancelled ones left out; 1 before the first."""
        judged = self.all.total - self.all.cancelled
        return self.all.successful / judged if judged else 1.0
