"""A configured backend, built: its endpoints, its timeouts and its connections."""

import random
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from weakref import WeakValueDictionary

from lexora_router.call import Target, Timeouts
from lexora_router.config import BackendConfig, Config
from lexora_router.engines.addressing import protocol_of
from lexora_router.engines.transport import Transport
from lexora_router.fleet.auto_limit import START, AutoLimit
from lexora_router.fleet.endpoint import HttpEndpoint, address_of
from lexora_router.fleet.endpoint_health import Condition, Rules
from lexora_router.fleet.pool import Pool
from lexora_router.fleet.tenants import Tenancy, input_estimate
from lexora_router.fleet.waiting import QueueLimits
from lexora_router.machine import usable_memory
from lexora_router.policy.breaker import BreakerRules
from lexora_router.policy.ejection import EjectionRules, most_ejected
from lexora_router.policy.quarantine import MAX_REQUESTS, Quarantine
from lexora_router.policy.slow_start import SlowStart

# An engine that says nothing at all for so long while streams wait, or for half of the time that they would wait, is out.
MAX_SILENCE_SECONDS = 30.0
# By default the bodies that wait take at most this share of the memory, of which each backend's queue has an equal part.
WAITING_SHARE = 4


class Health(Enum):
    """State of a backend: what its endpoints' states come to."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Backend:
    """One engine protocol at one or several interchangeable endpoints."""

    name: str
    config: BackendConfig
    endpoints: tuple[HttpEndpoint, ...]
    transport: Transport
    timeouts: Timeouts
    pool: Pool
    built_from: tuple[object, ...]

    def target(self, model: str) -> Target:
        """Where a call for this model goes; the name is the engine's after `model_mapping`."""
        return Target(self.name, self.timeouts, self.config.model_mapping.get(model, model), name=model)

    def fallback_target(self, model: str) -> Target:
        """Where a call for another backend's model goes when that one fails; `fallback_models` wins over `model_mapping`."""
        served = self.config.fallback_models.get(model)
        return Target(self.name, self.timeouts, served, substitute=True) if served else self.target(model)

    def health(self) -> Health:
        """What the last probes and attempts come to."""
        return combine([_state(endpoint) for endpoint in self.endpoints])


def combine(states: list[Health]) -> Health:
    """Healthy when all are, unhealthy when none is, else degraded; unknown ones have no say unless all are."""
    known = [state for state in states if state is not Health.UNKNOWN]
    if not known:
        return Health.UNKNOWN
    if all(state is Health.HEALTHY for state in known):
        return Health.HEALTHY
    return Health.UNHEALTHY if all(state is Health.UNHEALTHY for state in known) else Health.DEGRADED


TlsContexts = Mapping[str | None, ssl.SSLContext]
# By backend and address. Weak: of an endpoint that is configured no more it lives as long as calls run there, and when the
# endpoint is back before they have ended, they count.
Conditions = WeakValueDictionary[tuple[str, str], Condition]


def build_backends(
    config: Config,
    clock: Callable[[], float],
    previous: Mapping[str, Backend] | None = None,
    tls: TlsContexts | None = None,
    conditions: Conditions | None = None,
) -> dict[str, Backend]:
    """Every configured backend by name; no connection is made yet. Raises OSError when a `ca_file` cannot be used.

    A backend that was configured in the same way before is taken over. Of others the pool is, with who waits in it and what
    was counted, and the endpoints' conditions and where their moving limits stood. `tls` has the TLS settings for each
    `ca_file` (None: the system's); those that it lacks are read here. `conditions` are those of all endpoints that there
    are, and is brought up to date.
    """
    known = previous or {}
    alive = Conditions() if conditions is None else conditions
    built = {
        name: _same(known.get(name), backend, config)
        or _build(name, backend, config, known.get(name), alive, clock=clock, tls=tls or {})
        for name, backend in config.backends().items()
    }
    for name, backend in built.items():  # from here on nothing fails, so that a failed reload has changed nothing
        if known.get(name) is not backend:
            _go_on(backend, config)
            alive.update({(name, endpoint.address): endpoint.condition for endpoint in backend.endpoints})
    return built


def _go_on(backend: Backend, whole: Config) -> None:
    """Let what was taken over of an earlier backend follow the configuration."""
    rules = _rules(backend.config, whole)
    for endpoint in backend.endpoints:
        endpoint.condition.follow(rules)
    limits = _queue_limits(backend.config, whole)
    backend.pool.quarantine.follow(rules.breaker, most=_quarantined(whole))
    backend.pool.follow(backend.endpoints, limits, standing=Tenancy(whole).standing, ejection=_ejection(backend.config, whole))


def _same(known: Backend | None, config: BackendConfig, whole: Config) -> Backend | None:
    """The known backend, if nothing that it was built from has changed."""
    if known is None or known.config != config or known.built_from != _built_from(whole):
        return None
    return known


def _built_from(whole: Config) -> tuple[object, ...]:
    return (whole.routing.answer_model, whole.health, whole.queue, whole.tenants, whole.server.max_response_bytes)


def _build(
    name: str,
    config: BackendConfig,
    whole: Config,
    known: Backend | None,
    conditions: Conditions,
    *,
    clock: Callable[[], float],
    tls: TlsContexts,
) -> Backend:
    before = {endpoint.address: endpoint for endpoint in known.endpoints} if known else {}
    context = tls.get(config.ca_file)
    transport = Transport(connect_timeout=config.connect_timeout, clock=clock, ca_file=config.ca_file, tls=context)
    protocol = protocol_of(config)
    rules = _rules(config, whole)
    endpoints = tuple(
        HttpEndpoint(
            name,
            url,
            protocol=protocol,
            transport=transport,
            condition=conditions.get((name, address_of(url))) or Condition(rules),
            limit=config.max_concurrency,
            auto=_auto(config, before.get(address_of(url))),
            stream_usage=config.stream_usage,
            send_priority=config.type == "vllm" and config.scheduling_policy == "priority",
            keep_priority=config.type != "vllm",  # what the word means to other engines is theirs to say
            end_mark=config.type == "vllm",  # which always sends it: a stream without is that of an engine that died
            name_as_asked=whole.routing.answer_model == "asked",
            max_response_bytes=whole.server.max_response_bytes,
            clock=clock,
        )
        for url in config.endpoints
    )
    pool = known.pool if known else _pool(name, config, whole, endpoints, clock)
    timeouts = Timeouts(config.first_token, config.idle, config.total_timeout)
    return Backend(name, config, endpoints, transport, timeouts, pool, _built_from(whole))


def _pool(
    name: str, config: BackendConfig, whole: Config, endpoints: Sequence[HttpEndpoint], clock: Callable[[], float]
) -> Pool:
    return Pool(
        name,
        endpoints,
        _queue_limits(config, whole),
        standing=Tenancy(whole).standing,
        cost=input_estimate,
        ejection=_ejection(config, whole),
        randrange=random.randrange,
        clock=clock,
        quarantine=Quarantine(_rules(config, whole).breaker, most=_quarantined(whole)),
    )


def _queue_limits(config: BackendConfig, whole: Config) -> QueueLimits:
    queue = whole.queue.overridden(config.queue)
    most = usable_memory() // WAITING_SHARE // len(whole.backends()) if queue.max_bytes is None else queue.max_bytes
    return QueueLimits(queue.max_size, most, queue.timeout, queue.aging)


def _quarantined(whole: Config) -> int:
    """How many requests may be known as failing wherever they go."""
    return MAX_REQUESTS if whole.health.quarantine else 0


def _ejection(config: BackendConfig, whole: Config) -> EjectionRules:
    """Ejections last as long as breakers stay open, so that one setting says when an endpoint is tried again."""
    health = whole.health
    return EjectionRules(
        max_ejection_percent=health.max_ejection_percent,
        failure_share=health.failure_rate,
        min_volume=health.min_calls,
        max_silence=min(MAX_SILENCE_SECONDS, config.first_token / 2),
        base_time=health.open_time,
        max_time=health.max_open_time,
    )


def _auto(config: BackendConfig, before: HttpEndpoint | None) -> AutoLimit | None:
    """The moving limit of an endpoint, which begins where the one of an earlier configuration stood."""
    if config.concurrency != "auto" or config.max_concurrency is None:
        return None
    start = before.auto.limit if before is not None and before.auto is not None else START
    return AutoLimit(config.min_concurrency, config.max_concurrency, config.scrape_interval, start)


def _rules(config: BackendConfig, whole: Config) -> Rules:
    """Failures in a row open a breaker; a share of them does so only where no endpoint may be ejected.

    Elsewhere that is a case for ejection, which leaves enough of the pool: to serve half of the calls is better than none.
    """
    health = whole.health
    spared = most_ejected(len(config.endpoints), health.max_ejection_percent)
    breaker = BreakerRules(
        consecutive_failures=health.failure_threshold,
        failure_share=None if spared else health.failure_rate,
        min_volume=health.min_calls,
        window=health.window,
        open_time=health.open_time,
        max_open_time=health.max_open_time,
    )
    return Rules(breaker, SlowStart(window=health.slow_start), health.unhealthy_threshold)


def _state(endpoint: HttpEndpoint) -> Health:
    if endpoint.condition.healthy is None:
        return Health.UNKNOWN
    return Health.HEALTHY if endpoint.condition.healthy else Health.UNHEALTHY
