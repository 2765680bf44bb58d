"""What is asked at scrape time, so that a call pays nothing for it: backends, endpoints, the process."""

import errno
import platform
import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from lexora_router.engines.local_shortage import LOCAL, shortages
from lexora_router.fleet.backend import Backend, Health
from lexora_router.fleet.endpoint import HttpEndpoint
from lexora_router.policy.breaker import State
from lexora_router.telemetry.writer import LineWriter
from lexora_router.version import __version__

_HEALTH = {Health.HEALTHY: 1.0, Health.DEGRADED: 0.5, Health.UNHEALTHY: 0.0}
_BREAKER = {State.CLOSED: 0.0, State.HALF_OPEN: 1.0, State.OPEN: 2.0}


class BackendCollector:
    """Reads the backends of now. `clock` is the one that they live by, in seconds."""

    def __init__(self, backends: Callable[[], Mapping[str, Backend]], *, clock: Callable[[], float]) -> None:
        self._backends = backends
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        """Metrics per backend, then per endpoint."""
        backends = tuple(self._backends().values())
        yield from _of_backends(backends, self._clock())
        yield from _of_discovery(backends, self._clock())
        yield from _of_endpoints([(each, endpoint) for each in backends for endpoint in each.endpoints], self._clock())


class ProcessFacts:
    """Which version runs, and what its log has lost."""

    def collect(self) -> Iterable[Metric]:
        """Three metrics."""
        build = GaugeMetricFamily("lexora_build_info", "Always 1: the version that runs.", labels=["version", "python"])
        build.add_metric([__version__, platform.python_version()], 1)
        lost = CounterMetricFamily("lexora_log_lines_dropped", "Log lines that were dropped because the reader was too slow.")
        lost.add_metric([], LineWriter.dropped_in_all)
        short = CounterMetricFamily(
            "lexora_out_of_resources", "Connections that could not be made for want of this machine's own.", labels=["error"]
        )
        for number in LOCAL:
            name = errno.errorcode[number]
            short.add_metric([name], shortages.in_all[name])
        return build, lost, short


def _of_backends(backends: Iterable[Backend], now: float) -> Iterable[Metric]:
    health = GaugeMetricFamily("lexora_backend_health", "1 healthy, 0.5 degraded, 0 unhealthy.", labels=["backend"])
    depth = GaugeMetricFamily("lexora_queue_depth", "Calls that wait for a slot.", labels=["backend"])
    room = GaugeMetricFamily("lexora_queue_limit", "Calls that may wait for a slot.", labels=["backend"])
    waiting = GaugeMetricFamily("lexora_queue_bytes", "Bytes of the bodies of calls that wait.", labels=["backend"])
    allowed = GaugeMetricFamily("lexora_queue_bytes_limit", "Bytes of bodies that may wait.", labels=["backend"])
    waits = HistogramMetricFamily(
        "lexora_queue_seconds", "Time that admitted calls waited for their first slot.", labels=["backend"]
    )
    attempts = CounterMetricFamily("lexora_attempts", "Ended attempts on endpoints.", labels=["backend", "outcome"])
    held = GaugeMetricFamily(
        "lexora_quarantined_requests",
        "Requests that are refused now because they failed wherever they went.",
        labels=["backend"],
    )
    for backend in backends:
        state, pool = backend.health(), backend.pool
        if state in _HEALTH:
            health.add_metric([backend.name], _HEALTH[state])
        depth.add_metric([backend.name], pool.waiting)
        held.add_metric([backend.name], pool.quarantine.held(now))
        room.add_metric([backend.name], pool.limits.max_size)
        waiting.add_metric([backend.name], pool.waiting_bytes)
        allowed.add_metric([backend.name], pool.limits.max_bytes)
        waits.add_metric([backend.name], pool.tally.waits.cumulative(), pool.tally.waits.total)
        for outcome, count in pool.tally.attempts.items():
            attempts.add_metric([backend.name, outcome.value], count)
    return health, depth, room, waiting, allowed, waits, attempts, held


def _of_discovery(backends: Iterable[Backend], now: float) -> Iterable[Metric]:
    """Of backends whose endpoints are discovered; none of these has a sample where all addresses are configured."""
    found = GaugeMetricFamily("lexora_discovered_endpoints", "Endpoints that were found last.", labels=["backend"])
    good = GaugeMetricFamily(
        "lexora_discovery_last_success_timestamp_seconds", "When a look last succeeded, since 1970.", labels=["backend"]
    )
    failures = CounterMetricFamily("lexora_discovery_failures", "Looks for endpoints that failed.", labels=["backend"])
    failing = GaugeMetricFamily("lexora_discovery_failing", "1 when the last look failed, else 0.", labels=["backend"])
    for backend in backends:
        discovered = backend.discovered
        if discovered is None:
            continue
        found.add_metric([backend.name], len(backend.endpoints))
        failures.add_metric([backend.name], discovered.failures)
        failing.add_metric([backend.name], bool(discovered.problem))
        if discovered.succeeded_at is not None:
            good.add_metric([backend.name], time.time() - (now - discovered.succeeded_at))
    return found, good, failures, failing


def _of_endpoints(endpoints: Iterable[tuple[Backend, HttpEndpoint]], now: float) -> Iterable[Metric]:
    labels = ["backend", "endpoint"]
    flight = GaugeMetricFamily("lexora_endpoint_in_flight", "Attempts under way at an endpoint.", labels=labels)
    limit = GaugeMetricFamily("lexora_endpoint_limit", "Attempts that may be under way; absent without a limit.", labels=labels)
    breaker = GaugeMetricFamily("lexora_breaker_state", "0 closed, 1 half-open, 2 open.", labels=labels)
    available = GaugeMetricFamily("lexora_endpoint_available", "1 when calls should go there, else 0.", labels=labels)
    for backend, endpoint in endpoints:
        names, condition = [backend.name, endpoint.address], endpoint.condition
        flight.add_metric(names, endpoint.in_flight)
        if endpoint.limit is not None:
            limit.add_metric(names, endpoint.limit)
        breaker.add_metric(names, _BREAKER[condition.breaker_state(now)])
        available.add_metric(names, condition.available(now))
    return flight, limit, breaker, available
