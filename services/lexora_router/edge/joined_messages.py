"""Answers of several workers as one message: what is shared is added up, what each of them sees is weighed."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from lexora.v1 import stats_pb2
from lexora.v1.health_pb2 import (
    BACKEND_STATUS_DEGRADED,
    BACKEND_STATUS_UNSPECIFIED,
    BackendHealth,
    BackendStatus,
    Discovery,
    EndpointHealth,
    HealthResponse,
)
from lexora_contract.times import duration, seconds

_Whole = TypeVar("_Whole", HealthResponse, stats_pb2.GetStatsResponse)


def joined_health(parts: Sequence[HealthResponse]) -> HealthResponse:
    """The first part, with what the others see beside it."""
    whole = HealthResponse()
    whole.CopyFrom(parts[0])
    whole.status = _status(part.status for part in parts)
    whole.uptime.CopyFrom(duration(max(seconds(part.uptime) for part in parts)))
    _join_state(whole, parts)
    for name, backend in whole.backends.items():
        _join_backend(backend, [part.backends[name] for part in parts[1:] if name in part.backends])
    return whole


def joined_gauges(parts: Sequence[stats_pb2.GetStatsResponse]) -> stats_pb2.GetStatsResponse:
    """What of statistics is not counted."""
    whole = stats_pb2.GetStatsResponse()
    whole.CopyFrom(parts[0])
    whole.uptime.CopyFrom(duration(max(seconds(part.uptime) for part in parts)))
    _join_state(whole, parts)
    for part in parts[1:]:
        for name, waiting in part.waiting.items():
            whole.waiting[name] += waiting
        for address, other in part.endpoints.items():
            load = whole.endpoints[address]
            load.in_flight += other.in_flight
            load.breaker = max(load.breaker, other.breaker)
            if other.HasField("limit"):  # of which each worker holds a part
                load.limit += other.limit
        for name, found in part.discovery.items():
            _join_discovery(whole.discovery[name], found)
        if _later(part, whole):
            whole.last_reload.CopyFrom(part.last_reload)
    return whole


def _join_state(whole: _Whole, parts: Sequence[_Whole]) -> None:
    """The shared state as the worker has it that is worst off."""
    for part in parts:
        if whole.HasField("state") and whole.state.shared and part.HasField("state") and not part.state.shared:
            whole.state.CopyFrom(part.state)


def _join_discovery(whole: Discovery, other: Discovery) -> None:
    """As the worker has it that is worst off: each of them looks for itself."""
    whole.source = whole.source or other.source
    whole.problem = whole.problem or other.problem
    whole.endpoints = max(whole.endpoints, other.endpoints)
    whole.failures += other.failures
    if seconds(other.since_success) > seconds(whole.since_success):
        whole.since_success.CopyFrom(other.since_success)


def _later(one: stats_pb2.GetStatsResponse, other: stats_pb2.GetStatsResponse) -> bool:
    """Whether one's last reload is the one to show: the refused one of those that were at once, else the later one."""
    mine, its = one.last_reload, other.last_reload
    return (mine.bad_reloads, mine.finish_time.seconds, mine.result) > (its.bad_reloads, its.finish_time.seconds, its.result)


def _join_backend(backend: BackendHealth, others: Sequence[BackendHealth]) -> None:
    backend.status = _status(each.status for each in (backend, *others))
    backend.waiting += sum(each.waiting for each in others)
    for other in others:
        if other.HasField("discovery"):
            _join_discovery(backend.discovery, other.discovery)
    seen: dict[str, list[EndpointHealth]] = {}
    for other in others:
        for endpoint in other.endpoints:
            seen.setdefault(endpoint.address, []).append(endpoint)
    for endpoint in backend.endpoints:
        _join_endpoint(endpoint, seen.pop(endpoint.address, []))
    for unknown in seen.values():  # a change that has not come to this worker yet
        backend.endpoints.append(unknown[0])
        _join_endpoint(backend.endpoints[-1], unknown[1:])


def _join_endpoint(endpoint: EndpointHealth, others: Sequence[EndpointHealth]) -> None:
    endpoint.status = _status(each.status for each in (endpoint, *others))
    for other in others:
        endpoint.in_flight += other.in_flight
        endpoint.available = endpoint.available and other.available
        endpoint.breaker = max(endpoint.breaker, other.breaker)
        endpoint.reason = endpoint.reason or other.reason
        if other.HasField("limit"):  # of which each worker holds a part
            endpoint.limit += other.limit
        for name in ("waiting", "running", "kv_cache_usage"):  # of the engine, by the one that has asked it
            if other.HasField(name) and not endpoint.HasField(name):
                setattr(endpoint, name, getattr(other, name))


def _status(found: Iterable[BackendStatus.ValueType]) -> BackendStatus.ValueType:
    """What all see; degraded where they differ. One that has not looked yet says nothing."""
    states = {state for state in found if state != BACKEND_STATUS_UNSPECIFIED}
    if not states:
        return BACKEND_STATUS_UNSPECIFIED
    return states.pop() if len(states) == 1 else BACKEND_STATUS_DEGRADED
