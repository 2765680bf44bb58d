"""The picture of `lexora top`, from what a router said: no I/O."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from lexora.v1.health_pb2 import BackendHealth, BackendStatus, BreakerState, EndpointHealth, HealthResponse
from lexora.v1.recent_calls_pb2 import ListRecentCallsResponse, RecentCall
from lexora.v1.stats_pb2 import CallCounts, Distribution, GetStatsResponse, Interval
from lexora_cli.columns import columns
from lexora_cli.status_text import LATENCIES, coloured, duration, headline, shown, workers
from lexora_contract.answer import hops_text
from lexora_contract.escape import escaped
from lexora_contract.plain import hops_of, reason_name, resumed_name
from lexora_contract.times import seconds

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 10  # of a bar, in characters
# With fewer columns than this some are left out.
ROOMY = 120
# Lines that are there whatever the fleet is: headline, rates, latencies, heads of tables and the space between them.
FIXED_LINES = 15
# A model that is asked for more often hides others on a small screen.
MOST_MODELS = 6


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a router."""

    health: HealthResponse
    stats: GetStatsResponse
    calls: ListRecentCallsResponse


def picture(seen: Seen, router: str, *, trouble: str = "", width: int | None = None, height: int | None = None) -> Text:
    """Everything, cut to `width` columns and `height` lines: the last calls fill what the rest leaves.

    `trouble` says why it is old. Without a width nothing is cut.
    """
    endpoints = sum(len(shown(backend)) for backend in seen.health.backends.values())
    models = min(len(seen.stats.by_model), MOST_MODELS)
    room = None if height is None else max(height - FIXED_LINES - endpoints - models, 0)
    parts = [
        [_title(seen.health, router, trouble), *_rates(seen.stats, width)],
        _latencies(seen.stats, width),
        _endpoints(seen.health, width),
        _models(seen.stats, width),
        _calls(seen.calls.recent_calls[:room], width),
    ]
    text = Text("\n\n").join(Text("\n").join(lines) for lines in parts)
    if width is not None:
        text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _title(health: HealthResponse, router: str, trouble: str) -> Text:
    title = Text.assemble(("lexora top ", "bold"), f"{escaped(router)}  ", headline(health))
    if several := workers(health):
        title.append(f", {several}", style="bold red" if "no answer" in several else "")
    if trouble:
        title.append(f"  {escaped(trouble)}", style="bold red")
    return title


def _rates(stats: GetStatsResponse, width: int | None) -> list[Text]:
    """The last minute in numbers, the last five as bars."""
    whole = stats.history[:-1]  # the last interval is still going on
    recent = whole[-6:]
    room = len(whole) if width is None else (width - 6) // 3
    bars = [
        _bars("requests/s", [_per_second(each, each.total) for each in whole], _rate(_mean(recent, "total")), room),
        _bars(
            "tokens/s", [_per_second(each, each.tokens_output) for each in whole], _rate(_mean(recent, "tokens_output")), room
        ),
        _bars("TTFT p50", [seconds(each.latencies.ttft.p50) for each in whole], _seconds(stats.last_minute.ttft), room),
    ]
    waiting = sum(stats.waiting.values())
    counts = (
        ("under way", f"{stats.active_calls:,}"),
        ("waiting", f"{waiting:,}"),
        ("failed/s", _rate(_mean(recent, "failed"))),
    )
    return [Text("   ").join(bars), Text("   ").join(Text.assemble(f"{name} ", (number, "bold")) for name, number in counts)]


def _bars(name: str, values: Sequence[float], now: str, room: int) -> Text:
    """The name, the number of now, and as many of the latest values as fit into `room` characters."""
    title = Text.assemble(f"{name} ", (now, "bold"), " ")
    shown = values[-max(room - len(title), 1) :]
    most = max(shown, default=0.0)
    steps = len(BARS) - 1
    if not shown:
        title.rstrip()
    title.append("".join(BARS[round(value / most * steps) if most else 0] for value in shown), "cyan")
    return title


def _mean(intervals: Sequence[Interval], name: str) -> float:
    length = sum(seconds(each.length) for each in intervals)
    return sum(getattr(each, name) for each in intervals) / length if length else 0.0


def _per_second(interval: Interval, number: int) -> float:
    length = seconds(interval.length)
    return number / length if length else 0.0


def _rate(number: float) -> str:
    return f"{number:,.1f}" if 0 < number < 10 else f"{number:,.0f}"


def _latencies(stats: GetStatsResponse, width: int | None) -> list[Text]:
    spans = {"1 min": stats.last_minute, "5 min": stats.last_five_minutes, "since start": stats.since_start}
    if _narrow(width):
        del spans["5 min"]
    rows = ((title, *(_quantiles(getattr(span, name)) for span in spans.values())) for name, title in LATENCIES.items())
    return columns(("p50 / p90 / p99", *spans), rows, style="dim")


def _quantiles(found: Distribution) -> str:
    if not found.count:
        return "-"
    return " / ".join(duration(seconds(value)) for value in (found.p50, found.p90, found.p99))


def _seconds(found: Distribution) -> str:
    return duration(seconds(found.p50)) if found.count else "-"


def _endpoints(health: HealthResponse, width: int | None) -> list[Text]:
    narrow = _narrow(width)
    rows = (
        _endpoint(name if at == 0 else "", backend if at == 0 else None, endpoint, narrow=narrow)
        for name, backend in sorted(health.backends.items())
        for at, endpoint in enumerate(shown(backend))
    )
    engine = () if narrow else ("engine", "KV")
    return columns(
        ("backend~", "endpoint~", "state", "in flight", "breaker", "waits", *engine, "why~"), rows, style="dim", width=width
    )


def _endpoint(name: str, backend: BackendHealth | None, endpoint: EndpointHealth, *, narrow: bool) -> Sequence[str | Text]:
    engine = (
        f"{endpoint.running}+{endpoint.waiting}" if endpoint.HasField("running") else "-",
        f"{endpoint.kv_cache_usage:.0%}" if endpoint.HasField("kv_cache_usage") else "-",
    )
    return (
        name,
        endpoint.address.removeprefix("http://") if narrow else endpoint.address,
        coloured(BackendStatus, endpoint.status),
        _load(endpoint, 0 if narrow else WIDTH),
        coloured(BreakerState, endpoint.breaker),
        "" if backend is None else f"{backend.waiting:,}",
        *(() if narrow else engine),
        endpoint.reason,
    )


def _load(endpoint: EndpointHealth, bar: int) -> Text:
    if not endpoint.HasField("limit"):
        return Text(f"{endpoint.in_flight:,}")
    share = endpoint.in_flight / endpoint.limit if endpoint.limit else 1.0
    full = min(round(share * bar), bar)
    colour = "red" if share >= 1 else "yellow" if share >= 0.8 else "green"
    number = f"{endpoint.in_flight}/{endpoint.limit}"
    return Text.assemble(("█" * full, colour), ("░" * (bar - full), "dim"), f" {number}") if bar else Text(number)


def _models(stats: GetStatsResponse, width: int | None) -> list[Text]:
    ordered = sorted(stats.by_model.items(), key=lambda item: -item[1].total)
    rows = ((name, *map(_number, _counts(counts))) for name, counts in ordered[:MOST_MODELS])
    return columns(("model~", "calls", "failed", "tokens in", "cached", "tokens out"), rows, style="dim", width=width)


def _counts(counts: CallCounts) -> tuple[int, ...]:
    return (counts.total, counts.failed, counts.tokens_input, counts.tokens_cached, counts.tokens_output)


def _calls(calls: Sequence[RecentCall], width: int | None) -> list[Text]:
    head = ("ended", "model~", "backend~", "status", "TTFT", "total", "in", "out", "notes~")
    return columns(head, map(_call, calls), style="dim", width=width)


def _call(call: RecentCall) -> Sequence[str | Text]:
    tries = f"{call.attempts} attempts" if call.attempts > 1 else ""
    way = resumed_name(call.resume_method)
    resumed = f"resumed: {way}" if way else ""
    return (
        time.strftime("%H:%M:%S", time.localtime(call.finish_time.seconds)),
        call.model,
        call.backend,
        Text(str(call.status), style="green" if call.status < 400 else "yellow" if call.status < 500 else "red"),
        duration(seconds(call.time_to_first_token)) if call.HasField("time_to_first_token") else "-",
        duration(seconds(call.total_time)),
        _number(call.tokens_input) if call.HasField("tokens_input") else "-",
        _number(call.tokens_output) if call.HasField("tokens_output") else "-",
        ", ".join(note for note in (reason_name(call.error), tries, hops_text(hops_of(call.hops)), resumed) if note),
    )


def _number(number: int) -> str:
    return f"{number:,}"


def _narrow(width: int | None) -> bool:
    return width is not None and width < ROOMY
