"""Answers to the questions about the router itself: models, health, statistics."""

import asyncio
from collections.abc import Callable, Mapping

from lexora.v1 import models_pb2, stats_pb2
from lexora_router.backends.backend import Backend, Health, combine
from lexora_router.backends.endpoint import HttpEndpoint
from lexora_router.backends.probe import Prober
from lexora_router.backends.routes import ModelRoutes, RoutableModel
from lexora_router.telemetry.stats import Stats
from lexora_router.version import __version__

_STATUS = {
    Health.UNKNOWN: models_pb2.BACKEND_STATUS_UNSPECIFIED,
    Health.HEALTHY: models_pb2.BACKEND_STATUS_HEALTHY,
    Health.DEGRADED: models_pb2.BACKEND_STATUS_DEGRADED,
    Health.UNHEALTHY: models_pb2.BACKEND_STATUS_UNHEALTHY,
}


class Overview:
    """Reads the router's state; changes nothing."""

    def __init__(
        self,
        backends: Mapping[str, Backend],
        routes: ModelRoutes,
        prober: Prober,
        stats: Stats,
        *,
        default_for_unknown_task: str,
        probe_timeout: float,
        clock: Callable[[], float],
    ) -> None:
        self._backends = backends
        self._routes = routes
        self._prober = prober
        self._stats = stats
        self._default_for_unknown_task = default_for_unknown_task
        self._probe_timeout = probe_timeout
        self._clock = clock
        self._started = clock()

    async def default_model(self) -> str:
        """The model for calls that name none; empty when there is none."""
        return await self._routes.default_model()

    async def models(self) -> models_pb2.ListModelsResponse:
        """Exactly the routable models."""
        models = await self._routes.models()
        capabilities = {c for model in models if model.configured for c in model.configured.capabilities}
        return models_pb2.ListModelsResponse(
            models=[_model(model) for model in models],
            available_capabilities=sorted(capabilities),
            default_model_for_unknown_task=self._default_for_unknown_task,
        )

    def state(self) -> Health:
        """State of all backends together."""
        return combine([backend.health() for backend in self._backends.values()])

    async def health(self, *, draining: bool) -> models_pb2.HealthResponse:
        """State of each backend; waits for the first probes, but no longer than they may take."""
        try:
            async with asyncio.timeout(self._probe_timeout):
                await self._prober.first_round()
        except TimeoutError:
            pass  # what is not known by then is told as unknown
        return models_pb2.HealthResponse(
            status=models_pb2.BACKEND_STATUS_UNHEALTHY if draining else _STATUS[self.state()],
            backends={name: _backend_health(backend) for name, backend in self._backends.items()},
            version=__version__,
            uptime_seconds=self._clock() - self._started,
        )

    def stats(self) -> stats_pb2.GetStatsResponse:
        """Counters since the start, gauges of now."""
        stats = self._stats
        return stats_pb2.GetStatsResponse(
            total_requests=stats.total,
            successful_requests=stats.succeeded,
            failed_requests=stats.failed,
            cancelled_requests=stats.cancelled,
            success_rate=stats.success_rate,
            total_tokens_input=stats.tokens_input,
            total_tokens_output=stats.tokens_output,
            total_retries=stats.retries,
            average_duration_seconds=stats.seconds / stats.total if stats.total else 0.0,
            requests_per_endpoint=stats.per_path,
            requests_per_model=stats.per_model,
            requests_per_backend=stats.per_backend,
            errors_by_type=stats.errors,
            active_requests=stats.active,
            in_flight={e.address: e.in_flight for backend in self._backends.values() for e in backend.endpoints},
            uptime_seconds=self._clock() - self._started,
        )


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


def _backend_health(backend: Backend) -> models_pb2.BackendHealth:
    return models_pb2.BackendHealth(
        status=_STATUS[backend.health()], endpoints=[_endpoint_health(endpoint) for endpoint in backend.endpoints]
    )


def _endpoint_health(endpoint: HttpEndpoint) -> models_pb2.EndpointHealth:
    state = {None: Health.UNKNOWN, True: Health.HEALTHY, False: Health.UNHEALTHY}[endpoint.healthy]
    return models_pb2.EndpointHealth(
        address=endpoint.address, status=_STATUS[state], in_flight=endpoint.in_flight, reason=endpoint.reason
    )
