"""What calls with credentials came to, by tenant and key: for metrics. Both are of credentials, no client's choice."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric

from lexora_router.telemetry.account import OTHER, CallRecord
from lexora_router.telemetry.counts import Counts

MAX_KEYS = 500

_FAMILIES = (
    ("lexora_tenant_requests", "Finished calls of a tenant.", "total"),
    ("lexora_tenant_failed_requests", "Those of them that failed.", "failed"),
    ("lexora_tenant_tokens_input", "Input tokens, as engines counted them.", "tokens_input"),
    ("lexora_tenant_tokens_output", "Output tokens, as engines counted them.", "tokens_output"),
    ("lexora_tenant_tokens_cached", "Input tokens that came from engines' prefix caches.", "tokens_cached"),
)


class PrincipalMetrics:
    """The book of tenants and keys; the first MAX_KEYS have names of their own. Calls without credentials are not in it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counts: dict[tuple[str, str], Counts] = {}
        registry.register(self)

    def end(self, record: CallRecord) -> None:
        """Count the finished call."""
        principal = record.call.principal
        if not principal.account:
            return
        name = (principal.account, principal.key)
        counts = self._counts.get(name) or self._keep(name)
        counts.add(record.receipt.usage, failed=record.failed, cancelled=record.cancelled)

    def collect(self) -> Iterable[Metric]:
        """The counters."""
        for metric, text, field in _FAMILIES:
            family = CounterMetricFamily(metric, text, labels=["tenant", "key"])
            for name, counts in self._counts.items():
                family.add_metric(name, getattr(counts, field))
            yield family

    def _keep(self, name: tuple[str, str]) -> Counts:
        return self._counts.setdefault(name if len(self._counts) < MAX_KEYS else (OTHER, OTHER), Counts())
