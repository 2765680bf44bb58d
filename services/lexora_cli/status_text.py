"""Health and statistics of a router, for people."""

from collections.abc import Iterator
from typing import Any

from rich.text import Text

from lexora.v1.health_pb2 import BackendHealth, BackendStatus, BreakerState, EndpointHealth, HealthResponse
from lexora.v1.stats_pb2 import Distribution, GetStatsResponse
from lexora_cli.columns import columns
from lexora_cli.reload_text import summary
from lexora_contract.enums import word
from lexora_contract.escape import escaped
from lexora_contract.plain import reason_name
from lexora_contract.times import seconds

_COLOURS = {
    "healthy": "green",
    "degraded": "yellow",
    "unhealthy": "red",
    "unknown": "dim",
    "closed": "green",
    "half_open": "yellow",
    "open": "red",
}
LATENCIES = {"ttft": "first token", "itl": "between pieces", "queue": "until an engine", "total": "in all"}


def coloured(enum: Any, number: int) -> Text:
    """A state as a word in its colour."""
    name = word(enum, number)
    return Text(name, style=_COLOURS.get(name, ""))


def headline(health: HealthResponse) -> Text:
    """State, version and age in one line."""
    state = coloured(BackendStatus, health.status)
    return Text.assemble(state, f", version {escaped(health.version)}, up {_age(seconds(health.uptime))}", *_sharing(health))


def _sharing(health: HealthResponse) -> Iterator[str | tuple[str, str]]:
    """What is shared with other replicas, if it is."""
    if not health.HasField("state"):
        return
    replicas = health.state.replicas
    if health.state.shared:
        yield f", shares with {replicas - 1} other replica{'' if replicas == 2 else 's'}"
    else:
        yield f", 1/{replicas} of the limits for itself: "
        yield (escaped(health.state.reason), "yellow")


def workers(health: HealthResponse) -> str:
    """The processes of a router that has several; empty for one process."""
    silent = [f"{worker.number} (process {worker.pid})" for worker in health.workers if not worker.answered]
    number = len({worker.number for worker in health.workers})
    return (
        f"{number} worker{'' if number == 1 else 's'}" + (f", no answer from {', '.join(silent)}" if silent else "")
        if number
        else ""
    )


def endpoints(health: HealthResponse) -> list[Text]:
    """Every endpoint with its state; the calls that wait for a backend stand beside its first endpoint."""
    head = ("backend", "endpoint", "status", "in flight", "limit", "waiting", "breaker", "reason")
    return columns(head, _endpoints(health))


def shown(backend: BackendHealth) -> list[EndpointHealth]:
    """The endpoints of a backend; where it has none, what says so in their place."""
    none = EndpointHealth(address="(none)", status=backend.status, reason=backend.discovery.problem or "no endpoint is found")
    return list(backend.endpoints) or [none]


def discoveries(health: HealthResponse) -> list[Text]:
    """Where the endpoints of backends are found, and whether that works; nothing where all addresses are configured."""
    found = [(name, each.discovery) for name, each in sorted(health.backends.items()) if each.HasField("discovery")]
    rows = [
        (
            name,
            each.source,
            str(each.endpoints),
            f"{duration(seconds(each.since_success))} ago" if each.HasField("since_success") else "never",
            each.problem,
        )
        for name, each in found
    ]
    return columns(("backend", "discovered by", "endpoints", "found", "problem"), iter(rows)) if rows else []


def _endpoints(health: HealthResponse) -> Iterator[tuple[str | Text, ...]]:
    for name, backend in sorted(health.backends.items()):
        for place, endpoint in enumerate(shown(backend)):
            waiting = str(backend.waiting) if place == 0 else ""
            yield (name, *_endpoint(endpoint, waiting))


def _endpoint(endpoint: EndpointHealth, waiting: str) -> Iterator[str | Text]:
    yield endpoint.address
    yield coloured(BackendStatus, endpoint.status)
    yield str(endpoint.in_flight)
    yield str(endpoint.limit) if endpoint.HasField("limit") else "-"
    yield waiting
    yield coloured(BreakerState, endpoint.breaker)
    yield endpoint.reason


def latencies(stats: GetStatsResponse) -> list[Text]:
    """Percentiles of the last minute, of the last five, and since the start; what was never measured is left out."""
    return columns(("time", "within", "count", "p50", "p90", "p99"), _latencies(stats))


def _latencies(stats: GetStatsResponse) -> Iterator[tuple[str, ...]]:
    windows = (("1 min", stats.last_minute), ("5 min", stats.last_five_minutes), ("start", stats.since_start))
    for field, title in LATENCIES.items():
        if getattr(stats.since_start, field).count:
            for named, (within, sample) in zip((title, "", ""), windows, strict=True):
                found: Distribution = getattr(sample, field)
                yield (
                    named,
                    within,
                    f"{found.count:,}",
                    *(duration(seconds(each)) for each in (found.p50, found.p90, found.p99)),
                )


def duration(value: float) -> str:
    """Seconds for people; "-" for none."""
    if not value:
        return "-"
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"


def counters(stats: GetStatsResponse) -> Iterator[str]:
    """The statistics, a line for each group."""
    calls, wasted = stats.calls, stats.wasted_tokens
    yield (
        f"calls     {calls.total:,} finished, {calls.successful:,} well, {calls.failed:,} failed, "
        f"{calls.cancelled:,} cancelled, {stats.active_calls:,} under way"
    )
    yield f"success   {stats.success_rate:.1%}"
    yield (
        f"tokens    {calls.tokens_input:,} in ({calls.tokens_cached:,} cached), {calls.tokens_output:,} out, "
        f"{wasted.client_left + wasted.failed + wasted.failed_attempt:,} wasted"
    )
    yield f"duration  {seconds(stats.mean_time) * 1000:,.0f} ms on average"
    if stats.HasField("last_reload"):
        yield f"reload    {summary(stats.last_reload)}"
    models = {name: each.total for name, each in stats.by_model.items()}
    errors = {reason_name(each.reason): each.calls for each in stats.errors}
    for title, counts in (("models", models), ("errors", errors)):
        if counts:
            listed = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
            yield f"{title:<8}  {listed}"


def _age(value: float) -> str:
    days, rest = divmod(int(value), 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, last = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {last} s" if minutes else f"{last} s"
