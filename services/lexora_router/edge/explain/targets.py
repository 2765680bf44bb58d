"""What each target of a route would do with a call: give it a slot, let it wait, or refuse it."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from lexora.v1 import explain_pb2, health_pb2
from lexora_contract.times import duration
from lexora_router.assembly import Assembly
from lexora_router.call import Call, Target
from lexora_router.edge.discovery_message import discovery_message
from lexora_router.edge.explain.words import longest_wait, target_in_words
from lexora_router.errors import RouterError
from lexora_router.fleet.backend import Backend, Health
from lexora_router.fleet.endpoint import HttpEndpoint
from lexora_router.fleet.forecast import Forecast
from lexora_router.policy.failures import occasions
from lexora_router.policy.picker import score

Verdict: TypeAlias = "explain_pb2.Verdict.ValueType"


@dataclass(frozen=True, slots=True)
class Prospect:
    """One target explained; `refusal` is the reason of the error that it would answer with, empty when it takes the call."""

    message: explain_pb2.TargetExplanation
    refusal: str


def prospects(assembly: Assembly, targets: tuple[Target, ...], call: Call, now: float) -> list[Prospect]:
    """Those targets of a route that the call may go to, in their order."""
    config = assembly.config.fallback
    if not (config.enabled and call.fallback_allowed):
        targets = targets[:1]
    found = [_prospect(assembly.backends[target.backend], target, call, now) for target in targets]
    for one, _ in pairwise(found):
        one.message.falls_back_on = occasions(on_rate_limit=config.on_rate_limit)
    return found


def _prospect(backend: Backend, target: Target, call: Call, now: float) -> Prospect:
    pool = backend.pool
    forecast = pool.forecast(call)
    refusal = backend.refusal(call.path) or forecast.refusal
    endpoints = [_endpoint(endpoint, forecast, now) for endpoint in _likeliest_first(pool.endpoints, forecast, now)]
    message = explain_pb2.TargetExplanation(
        backend=target.backend,
        model=target.model,
        status=_backend_status(backend.health()),
        verdict=_verdict(refusal, forecast),
        waiting=pool.waiting,
        max_waiting=pool.limits.max_size,
        position=forecast.position,
        wait_time=None if forecast.wait is None else duration(forecast.wait),
        endpoints=endpoints,
        discovery=discovery_message(backend, now),
    )
    message.reason = target_in_words(message, refusal, longest_wait(call.max_queue_time, pool.limits.timeout))
    return Prospect(message, refusal.reason if refusal is not None else "")


def _verdict(refusal: RouterError | None, forecast: Forecast) -> Verdict:
    if refusal is not None:
        return explain_pb2.VERDICT_REJECT
    return explain_pb2.VERDICT_QUEUE if forecast.position else explain_pb2.VERDICT_DISPATCH


def _likeliest_first(endpoints: tuple[HttpEndpoint, ...], forecast: Forecast, now: float) -> list[HttpEndpoint]:
    """The endpoints that could get the call, the least loaded first; then those that are only full, then those that are out."""

    def rank(endpoint: HttpEndpoint) -> tuple[bool, bool, float]:
        condition = endpoint.condition
        return endpoint not in forecast.free, not condition.available(now), score(endpoint, condition.weight(now))

    return sorted(endpoints, key=rank)


def _endpoint(endpoint: HttpEndpoint, forecast: Forecast, now: float) -> explain_pb2.EndpointExplanation:
    condition, free = endpoint.condition, endpoint in forecast.free
    weight = condition.weight(now)
    return explain_pb2.EndpointExplanation(
        address=endpoint.address,
        score=score(endpoint, weight) if free else None,
        eligible=free,
        reason=condition.obstacle(now) or _fullness(endpoint),
        in_flight=endpoint.in_flight,
        limit=endpoint.limit,
        breaker=health_pb2.BreakerState.Value(f"BREAKER_STATE_{condition.breaker_state(now).name}"),
        weight=weight,
    )


def _fullness(endpoint: HttpEndpoint) -> str:
    return "" if endpoint.has_slot() else f"no free slot: {endpoint.in_flight} of {endpoint.limit} are taken"


def _backend_status(health: Health) -> health_pb2.BackendStatus.ValueType:
    if health is Health.UNKNOWN:
        return health_pb2.BACKEND_STATUS_UNSPECIFIED
    return health_pb2.BackendStatus.Value(f"BACKEND_STATUS_{health.name}")
