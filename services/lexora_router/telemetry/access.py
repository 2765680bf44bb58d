"""Metrics of the credentials that are asked for, read at scrape time."""

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from lexora_router.access.assembly import AccessAssembly
from lexora_router.access.authenticator import Failures


class AccessCollector:
    """Reads the failures so far, and the keys of the access of now."""

    def __init__(self, failures: Failures, access: Callable[[], AccessAssembly]) -> None:
        self._failures = failures
        self._access = access

    def collect(self) -> Iterable[Metric]:
        """Three metrics, and two of issuers of tokens."""
        failures = CounterMetricFamily("lexora_auth_failures", "Credentials that were refused.", labels=["cause"])
        for cause, count in self._failures.by_cause.items():
            failures.add_metric([cause], count)
        access = self._access()
        keys = access.keys
        held = GaugeMetricFamily("lexora_keys", "Keys in force, expired and revoked ones included.")
        held.add_metric([], 0 if keys is None else len(keys))
        readable = GaugeMetricFamily("lexora_keys_readable", "0 while the file of keys cannot be read, else 1.")
        readable.add_metric([], keys is None or keys.readable)
        return failures, held, readable, *_issuers(access)


def _issuers(access: AccessAssembly) -> Iterable[Metric]:
    held = GaugeMetricFamily("lexora_issuer_keys", "Keys of an issuer of tokens to verify with.", labels=["issuer"])
    readable = GaugeMetricFamily(
        "lexora_issuer_keys_readable", "0 while the keys of an issuer of tokens cannot be read, else 1.", labels=["issuer"]
    )
    for cache in () if access.tokens is None else access.tokens.caches:
        held.add_metric([cache.name], cache.count)
        readable.add_metric([cache.name], cache.readable)
    return held, readable
