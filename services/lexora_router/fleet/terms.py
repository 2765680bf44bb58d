"""What a configuration asks of one backend's pool and endpoints: queue, tenants, breakers, ejection, quarantine."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from lexora_router.call import Call
from lexora_router.config import BackendConfig, Config
from lexora_router.fleet.endpoint_health import HealthRules
from lexora_router.fleet.shares import Standing
from lexora_router.fleet.tenants import Tenancy
from lexora_router.fleet.waiting import QueueLimits
from lexora_router.machine import usable_memory
from lexora_router.policy.breaker import BreakerRules
from lexora_router.policy.ejection import EjectionRules, most_ejected
from lexora_router.policy.quarantine import MAX_REQUESTS
from lexora_router.policy.slow_start import SlowStart

# An engine that says nothing at all for so long while streams wait, or for half of the time that they would wait, is out.
MAX_SILENCE_SECONDS = 30.0
# By default the bodies that wait take at most this share of the memory, of which each backend's queue has an equal part.
WAITING_SHARE = 4


@dataclass(frozen=True, slots=True)
class Terms:
    """The settings that a pool and its endpoints follow; a reload gives them others.

    `standing` is the place of a call's tenant in the queue; at most `most_quarantined` requests are known as failing wherever
    they go, and 0 refuses none. `absence` says why there is no endpoint, where they are discovered.
    """

    limits: QueueLimits
    standing: Callable[[Call], Standing]
    rules: HealthRules
    ejection: EjectionRules
    most_quarantined: int = MAX_REQUESTS
    absence: Callable[[], str] = str

    def with_endpoints(self, endpoints: int, whole: Config) -> "Terms":
        """The same for another number of endpoints."""
        return replace(self, rules=_rules(whole, endpoints))


def terms_of(config: BackendConfig, whole: Config, endpoints: int, absence: Callable[[], str] = str) -> Terms:
    """The terms of one backend in a configuration, with so many endpoints."""
    return Terms(
        limits=_queue_limits(config, whole),
        standing=Tenancy(whole).standing,
        rules=_rules(whole, endpoints),
        ejection=_ejection(config, whole),
        most_quarantined=MAX_REQUESTS if whole.health.quarantine else 0,
        absence=absence,
    )


def _queue_limits(config: BackendConfig, whole: Config) -> QueueLimits:
    queue = whole.queue.overridden(config.queue)
    most = usable_memory() // WAITING_SHARE // len(whole.backends()) if queue.max_bytes is None else queue.max_bytes
    return QueueLimits(queue.max_size, most, queue.timeout, queue.aging)


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


def _rules(whole: Config, endpoints: int) -> HealthRules:
    """Failures in a row open a breaker; a share of them does so only where no endpoint may be ejected.

    Elsewhere that is a case for ejection, which leaves enough of the pool: to serve half of the calls is better than none.
    """
    health = whole.health
    spared = most_ejected(endpoints, health.max_ejection_percent)
    breaker = BreakerRules(
        consecutive_failures=health.failure_threshold,
        failure_share=None if spared else health.failure_rate,
        min_volume=health.min_calls,
        window=health.window,
        open_time=health.open_time,
        max_open_time=health.max_open_time,
    )
    return HealthRules(breaker, SlowStart(window=health.slow_start), health.unhealthy_threshold)
