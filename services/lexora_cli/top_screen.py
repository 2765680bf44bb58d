"""The picture of `lexora top`, from what a router said: no I/O."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lexora.v1.calls_pb2 import RecentCall, RecentCallsResponse
from lexora.v1.models_pb2 import BackendHealth, EndpointHealth, HealthResponse
from lexora.v1.stats_pb2 import Distribution, GetStatsResponse, Interval
from lexora_cli.screen import harmless
from lexora_cli.status_text import LATENCIES, coloured, duration, headline

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 10  # of a bar, in characters
# Lines that are there whatever the fleet is: headline, rates, latencies, heads of tables and the space between them.
FIXED_LINES = 14
# A model that is asked for more often hides others on a small screen.
MOST_MODELS = 6


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a router."""

    health: HealthResponse
    stats: GetStatsResponse
    calls: RecentCallsResponse


def picture(seen: Seen, router: str, *, trouble: str = "", height: int | None = None) -> RenderableType:
    """Everything, cut to `height` lines: the last calls fill what the rest leaves. `trouble` says why it is old."""
    endpoints = sum(len(backend.endpoints) for backend in seen.health.backends.values())
    models = min(len(seen.stats.by_model), MOST_MODELS)
    room = None if height is None else max(height - FIXED_LINES - endpoints - models, 0)
    parts: list[RenderableType] = [_title(seen.health, router, trouble), _rates(seen.stats), "", _latencies(seen.stats), ""]
    parts += [_endpoints(seen.health), "", _models(seen.stats), "", _calls(seen.calls.calls[:room])]
    return Group(*parts)


def _title(health: HealthResponse, router: str, trouble: str) -> Text:
    title = Text.assemble(("lexora top ", "bold"), f"{harmless(router)}  ", headline(health))
    if trouble:
        title.append(f"  {harmless(trouble)}", style="bold red")
    title.no_wrap, title.overflow = True, "ellipsis"
    return title


def _rates(stats: GetStatsResponse) -> Table:
    """The last minute in numbers, the last five as bars."""
    whole = stats.history[:-1]  # the last interval is still going on
    recent = whole[-6:]
    table = Table.grid(padding=(0, 3))
    waiting = sum(stats.queue_depth.values())
    table.add_row(
        _bars("requests/s", [_per_second(each, each.total) for each in whole], _rate(_mean(recent, "total"))),
        _bars("tokens/s", [_per_second(each, each.tokens_output) for each in whole], _rate(_mean(recent, "tokens_output"))),
        _bars("TTFT p50", [each.latencies.ttft.p50 for each in whole], _seconds(stats.last_minute.ttft)),
        Text.assemble("failed/s ", (_rate(_mean(recent, "failed")), "bold")),
        Text.assemble("under way ", (f"{stats.active_requests:,}", "bold"), " waiting ", (f"{waiting:,}", "bold")),
    )
    return table


def _bars(name: str, values: Sequence[float], now: str) -> Text:
    most = max(values, default=0.0)
    steps = len(BARS) - 1
    drawn = "".join(BARS[round(value / most * steps) if most else 0] for value in values)
    return Text.assemble(f"{name} ", (now, "bold"), " ", (drawn, "cyan"))


def _mean(intervals: Sequence[Interval], name: str) -> float:
    seconds = sum(each.seconds for each in intervals)
    return sum(getattr(each, name) for each in intervals) / seconds if seconds else 0.0


def _per_second(interval: Interval, number: int) -> float:
    return number / interval.seconds if interval.seconds else 0.0


def _rate(number: float) -> str:
    return f"{number:,.1f}" if 0 < number < 10 else f"{number:,.0f}"


def _latencies(stats: GetStatsResponse) -> Table:
    table = _table("p50 / p90 / p99", "1 min", "5 min", "since start")
    spans = (stats.last_minute, stats.last_five_minutes, stats.since_start)
    for name, title in LATENCIES.items():
        table.add_row(title, *(_quantiles(getattr(span, name)) for span in spans))
    return table


def _quantiles(found: Distribution) -> str:
    if not found.count:
        return "-"
    return " / ".join(duration(value) for value in (found.p50, found.p90, found.p99))


def _seconds(found: Distribution) -> str:
    return duration(found.p50) if found.count else "-"


def _endpoints(health: HealthResponse) -> Table:
    table = _table("backend", "endpoint", "state", "in flight", "breaker", "waits", "engine", "KV", "why")
    for name, backend in sorted(health.backends.items()):
        for at, endpoint in enumerate(backend.endpoints):
            table.add_row(*_endpoint(name if at == 0 else "", backend if at == 0 else None, endpoint))
    return table


def _endpoint(name: str, backend: BackendHealth | None, endpoint: EndpointHealth) -> Iterable[str | Text]:
    fields = EndpointHealth.DESCRIPTOR.fields_by_name
    yield _safe(name)
    yield _safe(endpoint.address)
    yield coloured(fields["status"], endpoint.status)
    yield _load(endpoint)
    yield coloured(fields["breaker"], endpoint.breaker)
    yield "" if backend is None else f"{backend.waiting:,}"
    yield f"{endpoint.running}+{endpoint.waiting}" if endpoint.HasField("running") else "-"
    yield f"{endpoint.kv_cache_usage:.0%}" if endpoint.HasField("kv_cache_usage") else "-"
    yield _safe(endpoint.reason)


def _load(endpoint: EndpointHealth) -> Text:
    if not endpoint.HasField("limit"):
        return Text(f"{endpoint.in_flight:,}")
    share = endpoint.in_flight / endpoint.limit if endpoint.limit else 1.0
    full = min(round(share * WIDTH), WIDTH)
    colour = "red" if share >= 1 else "yellow" if share >= 0.8 else "green"
    return Text.assemble(("█" * full, colour), ("░" * (WIDTH - full), "dim"), f" {endpoint.in_flight}/{endpoint.limit}")


def _models(stats: GetStatsResponse) -> Table:
    table = _table("model", "calls", "failed", "tokens in", "cached", "tokens out")
    ordered = sorted(stats.by_model.items(), key=lambda item: -item[1].total)
    for name, counts in ordered[:MOST_MODELS]:
        numbers = (counts.total, counts.failed, counts.tokens_input, counts.tokens_cached, counts.tokens_output)
        table.add_row(_safe(name), *(f"{number:,}" for number in numbers))
    return table


def _calls(calls: Sequence[RecentCall]) -> Table:
    table = _table("ended", "model", "backend", "status", "first token", "total", "in", "out", "notes")
    for call in calls:
        table.add_row(*_call(call))
    return table


def _call(call: RecentCall) -> Iterable[str | Text]:
    yield time.strftime("%H:%M:%S", time.localtime(call.finished_unix_ms / 1000))
    yield _safe(call.model)
    yield _safe(call.backend)
    yield Text(str(call.status), style="green" if call.status < 400 else "yellow" if call.status < 500 else "red")
    yield duration(call.ttft_seconds) if call.HasField("ttft_seconds") else "-"
    yield duration(call.total_seconds)
    yield f"{call.tokens_input:,}" if call.HasField("tokens_input") else "-"
    yield f"{call.tokens_output:,}" if call.HasField("tokens_output") else "-"
    tries = f"{call.attempts} attempts" if call.attempts > 1 else ""
    resumed = f"resumed: {call.resumed}" if call.resumed else ""
    yield _safe(", ".join(note for note in (call.error, tries, call.fallback, resumed) if note))


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    return table


def _safe(text: str) -> str:
    return escape(harmless(text))
