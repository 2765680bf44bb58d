"""Answers to the questions about the router itself: models, health, statistics, recent calls."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator

from lexora.v1 import health_pb2, models_pb2, recent_calls_pb2, stats_pb2
from lexora_contract.enums import value
from lexora_contract.times import duration
from lexora_router.assembly import Assembly
from lexora_router.edge.discovery_message import discovery_message
from lexora_router.edge.pages import Key, after, page, page_size
from lexora_router.edge.stats_messages import recent_call_message, reload_message, stats_message
from lexora_router.errors import InvalidRequest, ModelNotFound
from lexora_router.fleet.backend import Backend, Health
from lexora_router.fleet.endpoint import HttpEndpoint
from lexora_router.fleet.routes import RoutableModel
from lexora_router.policy.breaker import State
from lexora_router.principal import Principal
from lexora_router.state.link import StateLink
from lexora_router.telemetry.recent import KEPT, RecentCalls
from lexora_router.telemetry.reloads import ReloadLog
from lexora_router.telemetry.stats import Stats, StatsCounts
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

# A page of models has no more than these.
MOST_MODELS = 1000
# How many recent calls a page has when the request does not say it.
DEFAULT_RECENT = 50
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
        state: StateLink | None = None,
    ) -> None:
        self._assembly = assembly
        self._stats = stats
        self._recent = recent
        self._reloads = reloads
        self._clock = clock
        self._wall_clock = wall_clock
        self._state = state
        self._started = clock()

    async def models(self, request: models_pb2.ListModelsRequest, principal: Principal) -> models_pb2.ListModelsResponse:
        """Exactly the models that the caller can ask, a page at a time. Raises InvalidRequest."""
        size = page_size(request.page_size, default=MOST_MODELS, most=MOST_MODELS)
        last, assembly = after(request.page_token), self._assembly()
        models = await self._of(principal)
        found, token = page((model for model in models if last is None or _place(model) > last), size, _place)
        capabilities = {c for model in models if model.configured for c in model.configured.capabilities}
        return models_pb2.ListModelsResponse(
            models=[_model(model, principal) for model in found],
            next_page_token=token,
            available_capabilities=sorted(capabilities),
            default_model_for_unknown_task=_seen(assembly.config.routing.default_model_for_unknown_task or "", principal),
        )

    async def model(self, name: str, principal: Principal) -> models_pb2.GetModelResponse:
        """The model of this name or alias. Raises ModelNotFound, and InvalidRequest for no name."""
        if not name:
            raise InvalidRequest("id is missing: the name or alias of a model.", "id")
        for model in await self._of(principal):
            if model.id == name:
                return models_pb2.GetModelResponse(model=_model(model, principal))
        raise ModelNotFound(name)

    async def _of(self, principal: Principal) -> list[RoutableModel]:
        """The models that a principal may use; to others it is as if there were no more."""
        models = await self._assembly().routes.models()
        return [model for model in models if principal.may_use(model.id)] if principal.models else models

    async def health(self, *, draining: bool) -> health_pb2.HealthResponse:
        """State of each backend; waits for the first probes, but no longer than they may take."""
        assembly = self._assembly()
        try:
            async with asyncio.timeout(assembly.config.health.timeout + PROBE_SLACK_SECONDS):
                await assembly.prober.first_round()
        except TimeoutError:
            pass  # what is not known by then is unknown
        now, overall = self._clock(), Health.UNHEALTHY if draining else assembly.health()
        if overall is Health.HEALTHY and self._state is not None and self._state.degraded:
            overall = Health.DEGRADED
        return health_pb2.HealthResponse(
            status=_STATUS[overall],
            backends={name: _backend_health(backend, now) for name, backend in assembly.backends.items()},
            version=__version__,
            uptime=duration(now - self._started),
            credentials_needed=assembly.config.auth.enabled,
            state=_shared(self._state),
        )

    def stats(self) -> stats_pb2.GetStatsResponse:
        """Counters since the start, distributions of the last minutes, gauges of now."""
        message = stats_message(self._stats, self._clock(), self._wall_clock())
        message.MergeFrom(self.gauges())
        return message

    def counts(self) -> StatsCounts:
        """What of it is counted, as data."""
        return self._stats.counts

    def gauges(self) -> stats_pb2.GetStatsResponse:
        """What of it is not."""
        now, backends = self._clock(), self._assembly().backends
        endpoints = [endpoint for backend in backends.values() for endpoint in backend.endpoints]
        return stats_pb2.GetStatsResponse(
            uptime=duration(now - self._started),
            last_reload=reload_message(self._reloads.last),
            waiting={name: backend.pool.waiting for name, backend in backends.items()},
            endpoints=_loads(endpoints, now),
            state=_shared(self._state),
            discovery={
                name: found for name, backend in backends.items() if (found := discovery_message(backend, now)) is not None
            },
        )

    @property
    def active(self) -> int:
        """Calls under way."""
        return self._stats.active

    def recent_calls(self, request: recent_calls_pb2.ListRecentCallsRequest) -> recent_calls_pb2.ListRecentCallsResponse:
        """The calls that finished last, the latest first, a page at a time. Raises InvalidRequest."""
        size = page_size(request.page_size, default=DEFAULT_RECENT, most=KEPT)
        last = after(request.page_token)
        now, wall = self._clock(), self._wall_clock()
        calls, token = page(self._recent.last(_number(last)), size, lambda call: (str(call.number),))
        messages = [recent_call_message(call, now, wall) for call in calls]
        return recent_calls_pb2.ListRecentCallsResponse(recent_calls=messages, next_page_token=token)

    def finished(self) -> Iterator[tuple[float, int, recent_calls_pb2.RecentCall]]:
        """All calls that are remembered: when each finished, by the clock, its number, and itself."""
        now, wall = self._clock(), self._wall_clock()
        for call in self._recent.last():
            yield call.receipt.finished_at, call.number, recent_call_message(call, now, wall)

    def now(self) -> float:
        """The instant, by the clock."""
        return self._clock()

    def wall(self) -> float:
        """The same in seconds since 1970."""
        return self._wall_clock()


def _place(model: RoutableModel) -> Key:
    """Models are sorted by this."""
    return (model.backend.name, model.id)


def _number(key: Key | None) -> int | None:
    """The number of the last call that was shown."""
    if key is None:
        return None
    if len(key) == 1 and key[0].isascii() and key[0].isdecimal():
        return int(key[0])
    raise InvalidRequest("page_token is of another list.", "page_token")


def _seen(name: str, principal: Principal) -> str:
    """The name of another model, where the caller may know that it is there."""
    return name if principal.may_use(name) else ""


def _model(model: RoutableModel, principal: Principal) -> models_pb2.Model:
    configured = model.configured
    return models_pb2.Model(
        id=model.id,
        backend=model.backend.name,
        backend_type=value(models_pb2.BackendType, model.backend.config.type),
        capabilities=configured.capabilities if configured else ("general",),
        description=configured.description if configured else "",
        max_model_len=model.max_model_len,
        status=_STATUS[model.backend.health()],
        upstream_json=model.entry.decode("utf-8", "replace"),
        alias_of=_seen(model.alias_of, principal),
    )


def _shared(link: StateLink | None) -> health_pb2.SharedState | None:
    if link is None:
        return None
    return health_pb2.SharedState(shared=not link.degraded, reason=link.reason, replicas=link.members)


def _backend_health(backend: Backend, now: float) -> health_pb2.BackendHealth:
    return health_pb2.BackendHealth(
        status=_STATUS[backend.health()],
        endpoints=[_endpoint_health(endpoint, now) for endpoint in backend.endpoints],
        waiting=backend.pool.waiting,
        discovery=discovery_message(backend, now),
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


def _loads(endpoints: Iterable[HttpEndpoint], now: float) -> dict[str, stats_pb2.EndpointLoad]:
    """By address; where several backends name the same one, their calls and limits together, and the worst breaker."""
    loads: dict[str, stats_pb2.EndpointLoad] = {}
    for endpoint in endpoints:
        load = loads.setdefault(endpoint.address, stats_pb2.EndpointLoad())
        load.in_flight += endpoint.in_flight
        if endpoint.limit is not None:
            load.limit += endpoint.limit
        load.breaker = max(load.breaker, _BREAKER[endpoint.condition.breaker_state(now)])
    return loads
