"""Health and statistics of a router, for people."""

from collections.abc import Iterator

from google.protobuf.descriptor import FieldDescriptor
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lexora.v1.models_pb2 import EndpointHealth, HealthResponse
from lexora.v1.stats_pb2 import GetStatsResponse
from lexora_cli.plain_message import word
from lexora_cli.reload_text import summary
from lexora_cli.screen import harmless

_COLOURS = {"healthy": "green", "degraded": "yellow", "unhealthy": "red", "unknown": "dim"}


def coloured(field: FieldDescriptor, number: int) -> Text:
    """A status as a word in its colour."""
    name = word(field, number)
    return Text(name, style=_COLOURS.get(name, ""))


def headline(health: HealthResponse) -> Text:
    """State, version and age in one line."""
    state = coloured(health.DESCRIPTOR.fields_by_name["status"], health.status)
    return Text.assemble(state, f", version {harmless(health.version)}, up {_age(health.uptime_seconds)}")


def endpoints(health: HealthResponse) -> Table:
    """Every endpoint with its state."""
    table = Table("backend", "endpoint", "status", "in flight", "reason", box=None, pad_edge=False)
    field = EndpointHealth.DESCRIPTOR.fields_by_name["status"]
    for name, backend in sorted(health.backends.items()):
        for endpoint in backend.endpoints:
            state = coloured(field, endpoint.status)
            texts = [escape(harmless(text)) for text in (name, endpoint.address, endpoint.reason)]
            table.add_row(texts[0], texts[1], state, str(endpoint.in_flight), texts[2])
    return table


def counters(stats: GetStatsResponse) -> Iterator[str]:
    """The statistics, a line for each group."""
    yield (
        f"calls     {stats.total_requests:,} finished, {stats.successful_requests:,} well, {stats.failed_requests:,} failed, "
        f"{stats.cancelled_requests:,} cancelled, {stats.active_requests:,} under way"
    )
    yield f"success   {stats.success_rate:.1%}"
    yield f"tokens    {stats.total_tokens_input:,} in, {stats.total_tokens_output:,} out"
    yield f"duration  {stats.average_duration_seconds * 1000:,.0f} ms on average"
    if stats.HasField("last_reload"):
        yield f"reload    {summary(stats.last_reload)}"
    for title, counts in (("models", stats.requests_per_model), ("errors", stats.errors_by_type)):
        if counts:
            listed = ", ".join(f"{harmless(name)} {count:,}" for name, count in sorted(counts.items()))
            yield f"{title:<8}  {listed}"


def _age(seconds: float) -> str:
    days, rest = divmod(int(seconds), 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, last = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {last} s" if minutes else f"{last} s"
