"""Answers to the questions about the router itself: models, health, statistics, recent calls."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable

from lexora.v1 import health_pb2, models_pb2, recent_pb2, stats_pb2
from lexora_router.assembly import Assembly
from lexora_router.edge.stats_messages import recent_call_message, reload_message, stats_message
from lexora_router.fleet.backend import Backend, Health
from lexora_router.fleet.endpoint import HttpEndpoint
from lexora_router.fleet.routes import RoutableModel
from lexora_router.policy.breaker import State
from lexora_router.telemetry.recent import RecentCalls
from lexora_router.telemetry.reloads import ReloadLog
from lexora_router.telemetry.stats import Stats
from lexora_router.version import __version__

_STATUS = {
    Health.UNKNOWN: health_pb2.BACKEND_STATUS_UNSPECIFIED,
    Health.HEALTHY: health_pb2.BACKEND_STATUS_HEALTHY,
    Health.DEGRADED: health_pb2.BACKEND_STATUS_DEGRADED,
    Health.UNHEALTHY: health_pb2.BACKEND_STATUS_UNHEALTHY,
}

_BREAKER = {
    State.CLOSED: health_pb2.BREAKER_STATE_CLOSED,
    State.HALF_OPEN: health_pb2.BREAKER_STATE_HALF_OPEN,
    State.OPEN: health_pb2.BREAKER_STATE_OPEN,
}

# A probe may take its whole time limit; then its result must still arrive.
PROBE_SLACK_SECONDS = 0.5


class Overview:
    """Reads the router's state; changes nothing."""

    def __init__(
        self,
        assembly: Callable[[], Assembly],
        stats: Stats,
        recent: RecentCalls,
        reloads: ReloadLog,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._assembly = assembly
        self._stats = stats
        self._recent = recent
        self._reloads = reloads
        self._clock = clock
        self._wall_clock = wall_clock
        self._started = clock()

    async def models(self) -> models_pb2.ListModelsResponse:
        """Exactly the routable models."""
        assembly = self._assembly()
        models = await assembly.routes.models()
        capabilities = {c for model in models if model.configured for c in model.configured.capabilities}
        return models_pb2.ListModelsResponse(
            models=[_model(model) for model in models],
            available_capabilities=sorted(capabilities),
            default_model_for_unknown_task=assembly.config.routing.default_model_for_unknown_task or "",
        )

    async def health(self, *, draining: bool) -> health_pb2.HealthResponse:
        """State of each backend; waits for the first probes, but no longer than they may take."""
        assembly = self._assembly()
        try:
            async with asyncio.timeout(assembly.config.health.timeout + PROBE_SLACK_SECONDS):
                await assembly.prober.first_round()
        except TimeoutError:
            pass  # what is not known by then is told as unknown
        now = self._clock()
        return health_pb2.HealthResponse(
            status=health_pb2.BACKEND_STATUS_UNHEALTHY if draining else _STATUS[assembly.health()],
            backends={name: _backend_health(backend, now) for name, backend in assembly.backends.items()},
            version=__version__,
            uptime_seconds=now - self._started,
        )

    def stats(self) -> stats_pb2.GetStatsResponse:
        """Counters since the start, distributions of the last minutes, gauges of now."""
        now, backends = self._clock(), self._assembly().backends
        endpoints = [endpoint for backend in backends.values() for endpoint in backend.endpoints]
        told = stats_message(self._stats, now, self._wall_clock())
        told.MergeFrom(
            stats_pb2.GetStatsResponse(
                in_flight=_sums((endpoint.address, endpoint.in_flight) for endpoint in endpoints),
                uptime_seconds=now - self._started,
                last_reload=reload_message(self._reloads.last),
                queue_depth={name: backend.pool.waiting for name, backend in backends.items()},
                limits=_sums((endpoint.address, endpoint.limit) for endpoint in endpoints if endpoint.limit is not None),
                breakers=_breakers(endpoints, now),
            )
        )
        return told

    def recent_calls(self, most: int) -> recent_pb2.RecentCallsResponse:
        """The calls that finished last, the latest first."""
        now, wall = self._clock(), self._wall_clock()
        return recent_pb2.RecentCallsResponse(calls=[recent_call_message(call, now, wall) for call in self._recent.last(most)])


def _model(model: RoutableModel) -> models_pb2.Model:
    configured = model.configured
    return models_pb2.Model(
        id=model.id,
        backend=model.backend.name,
        backend_type=model.backend.config.type,
        capabilities=configured.capabilities if configured else ("general",),
        description=configured.description if configured else "",
        max_model_len=model.max_model_len,
        status=_STATUS[model.backend.health()],
        upstream_json=model.entry.decode("utf-8", "replace"),
        alias_of=model.alias_of,
    )


def _backend_health(backend: Backend, now: float) -> health_pb2.BackendHealth:
    return health_pb2.BackendHealth(
        status=_STATUS[backend.health()],
        endpoints=[_endpoint_health(endpoint, now) for endpoint in backend.endpoints],
        waiting=backend.pool.waiting,
    )


def _endpoint_health(endpoint: HttpEndpoint, now: float) -> health_pb2.EndpointHealth:
    condition = endpoint.condition
    state = {None: Health.UNKNOWN, True: Health.HEALTHY, False: Health.UNHEALTHY}[condition.healthy]
    engine = endpoint.auto.heard(now) if endpoint.auto is not None else None
    said = {} if engine is None else {"waiting": int(engine.waiting), "running": int(engine.running)}
    return health_pb2.EndpointHealth(
        address=endpoint.address,
        status=_STATUS[state],
        in_flight=endpoint.in_flight,
        reason=condition.reason,
        breaker=_BREAKER[condition.breaker_state(now)],
        limit=endpoint.limit,
        available=condition.available(now),
        kv_cache_usage=engine.kv_cache_usage if engine is not None else None,
        **said,
    )


def _sums(pairs: Iterable[tuple[str, int]]) -> Counter[str]:
    """By address: several backends may name the same one."""
    sums: Counter[str] = Counter()
    for address, number in pairs:
        sums[address] += number
    return sums


def _breakers(endpoints: Iterable[HttpEndpoint], now: float) -> dict[str, str]:
    """By address, the worst where several backends name the same one."""
    worst: dict[str, State] = {}
    for endpoint in endpoints:
        state = endpoint.condition.breaker_state(now)
        worst[endpoint.address] = max(state, worst.get(endpoint.address, state), key=_BREAKER.__getitem__)
    return {address: state.value for address, state in worst.items()}
