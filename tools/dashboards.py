"""Writes deploy/grafana/*.json: `python tools/dashboards.py`. A test compares the files with what this writes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "deploy" / "grafana"
SOURCE = {"type": "prometheus", "uid": "${source}"}
WIDTH = 24  # of Grafana's grid
HEIGHT = 8
RATE = "[$__rate_interval]"
JOB = 'job=~"$job"'
ONE = 'job=~"$job", backend=~"$backend"'


@dataclass(frozen=True)
class Panel:
    """One panel: `queries` are pairs of a legend and an expression, `unit` is Grafana's."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    width: int = 8
    about: str = ""
    stacked: bool = False
    words: tuple[tuple[float, str, str], ...] = ()  # value, word, colour


def quantiles(metric: str, labels: str, *by: str) -> tuple[tuple[str, str], ...]:
    """p50, p90 and p99 of a histogram."""
    legend = " ".join(f"{{{{{name}}}}}" for name in by)
    return tuple(
        (
            f"p{round(share * 100)} {legend}".strip(),
            f"histogram_quantile({share}, sum by ({', '.join(('le', *by))}) (rate({metric}_bucket{{{labels}}}{RATE})))",
        )
        for share in (0.5, 0.9, 0.99)
    )


def rate(metric: str, labels: str, *by: str) -> str:
    """Per second, summed by labels."""
    summed = f"sum by ({', '.join(by)})" if by else "sum"
    return f"{summed} (rate({metric}{{{labels}}}{RATE}))"


HEALTH = ((1.0, "healthy", "green"), (0.5, "degraded", "yellow"), (0.0, "down", "red"))
BREAKER = ((0.0, "closed", "green"), (1.0, "half-open", "yellow"), (2.0, "open", "red"))

OVERVIEW = (
    Panel("Calls", "reqps", (("", rate("lexora_requests_total", JOB)),), "stat", 4),
    Panel(
        "Errors",
        "percentunit",
        (("", f'sum(rate(lexora_requests_total{{{JOB}, status=~"5.."}}{RATE})) / {rate("lexora_requests_total", JOB)}'),),
        "stat",
        4,
        "5xx of all calls; the clients' own errors and those that left do not count.",
    ),
    Panel("Under way", "short", (("", f"sum(lexora_active_requests{{{JOB}}})"),), "stat", 4),
    Panel("Waiting", "short", (("", f"sum(lexora_queue_depth{{{JOB}}})"),), "stat", 4),
    Panel("Output tokens", "short", (("", rate("lexora_tokens_output_total", JOB)),), "stat", 4, "Per second."),
    Panel("Backends", "short", (("{{backend}}", f"lexora_backend_health{{{JOB}}}"),), "stat", 4, words=HEALTH),
    Panel("Calls by status", "reqps", (("{{status}}", rate("lexora_requests_total", JOB, "status")),), stacked=True),
    Panel("Calls by model", "reqps", (("{{model}}", rate("lexora_requests_total", JOB, "model")),), stacked=True),
    Panel("Calls by path", "reqps", (("{{endpoint}}", rate("lexora_requests_total", JOB, "endpoint")),), stacked=True),
    Panel("Time to first token", "s", quantiles("lexora_time_to_first_token_seconds", JOB)),
    Panel("Time per output token", "s", quantiles("lexora_time_per_output_token_seconds", JOB)),
    Panel("Duration of calls", "s", quantiles("lexora_request_duration_seconds", JOB)),
    Panel("Wait for a slot", "s", quantiles("lexora_queue_seconds", JOB)),
    Panel("Queue depth", "short", (("{{backend}}", f"sum by (backend) (lexora_queue_depth{{{JOB}}})"),)),
    Panel("Refused", "reqps", (("{{reason}}", rate("lexora_rejections_total", JOB, "reason")),), stacked=True),
    Panel(
        "Tokens",
        "short",
        (
            ("input", rate("lexora_tokens_input_total", JOB)),
            ("of them cached", rate("lexora_tokens_cached_total", JOB)),
            ("output", rate("lexora_tokens_output_total", JOB)),
        ),
        about="Per second, as engines counted them.",
    ),
    Panel(
        "Tokens wasted",
        "short",
        (("{{reason}}", rate("lexora_tokens_wasted_total", JOB, "reason")),),
        about="Per second: made for clients that left, or by attempts and calls that failed.",
        stacked=True,
    ),
    Panel(
        "Retries, fallbacks, resumed streams",
        "reqps",
        (
            ("retries", rate("lexora_retries_total", JOB)),
            ("fallbacks {{from}} to {{to}}", rate("lexora_fallbacks_total", JOB, "from", "to")),
            ("resumed", rate("lexora_streams_resumed_total", JOB)),
        ),
    ),
    Panel("Clients that left", "reqps", (("{{endpoint}}", rate("lexora_cancelled_requests_total", JOB, "endpoint")),)),
    Panel("Event loop lag", "s", quantiles("lexora_event_loop_lag_seconds", JOB, "instance")),
    Panel(
        "Process",
        "short",
        (
            ("CPU cores {{instance}}", f"rate(process_cpu_seconds_total{{{JOB}}}{RATE})"),
            ("GiB {{instance}}", f"process_resident_memory_bytes{{{JOB}}} / 2^30"),
        ),
    ),
    Panel(
        "Configuration",
        "short",
        (("{{instance}}", f"lexora_config_last_reload_success{{{JOB}}}"),),
        "stat",
        8,
        words=((1.0, "in force", "green"), (0.0, "refused", "red")),
    ),
    Panel("Version", "short", (("{{version}} {{instance}}", f"lexora_build_info{{{JOB}}}"),), "stat", 8),
    Panel("Log lines dropped", "short", (("{{instance}}", f"increase(lexora_log_lines_dropped_total{{{JOB}}}[1h])"),), "stat"),
)

BACKEND = (
    Panel("State", "short", (("{{backend}}", f"lexora_backend_health{{{ONE}}}"),), "stat", 6, words=HEALTH),
    Panel("In flight", "short", (("{{backend}}", f"sum by (backend) (lexora_endpoint_in_flight{{{ONE}}})"),), "stat", 6),
    Panel("Waiting", "short", (("{{backend}}", f"sum by (backend) (lexora_queue_depth{{{ONE}}})"),), "stat", 6),
    Panel("Queue", "percentunit", (("{{backend}}", f"lexora_queue_depth{{{ONE}}} / lexora_queue_limit{{{ONE}}}"),), "gauge", 6),
    Panel("Attempts by outcome", "reqps", (("{{outcome}}", rate("lexora_attempts_total", ONE, "outcome")),), stacked=True),
    Panel("Time to first token", "s", quantiles("lexora_time_to_first_token_seconds", ONE)),
    Panel("Time per output token", "s", quantiles("lexora_time_per_output_token_seconds", ONE)),
    Panel("In flight by endpoint", "short", (("{{endpoint}}", f"lexora_endpoint_in_flight{{{ONE}}}"),), width=12),
    Panel("Limit by endpoint", "short", (("{{endpoint}}", f"lexora_endpoint_limit{{{ONE}}}"),), width=12),
    Panel("Breaker", "short", (("{{endpoint}}", f"lexora_breaker_state{{{ONE}}}"),), "state-timeline", 12, words=BREAKER),
    Panel(
        "Gets calls",
        "short",
        (("{{endpoint}}", f"lexora_endpoint_available{{{ONE}}}"),),
        "state-timeline",
        12,
        words=((1.0, "yes", "green"), (0.0, "no", "red")),
    ),
    Panel("Wait for a slot", "s", quantiles("lexora_queue_seconds", ONE)),
    Panel("Queue depth", "short", (("{{backend}}", f"lexora_queue_depth{{{ONE}}}"),)),
    Panel(
        "Fallbacks",
        "reqps",
        (
            ("to {{to}}: {{reason}}", rate("lexora_fallbacks_total", f'{JOB}, from=~"$backend"', "to", "reason")),
            (
                "from {{from}}: {{reason}}",
                f'sum by (from, reason) (rate(lexora_fallbacks_total{{{JOB}, to=~"$backend"}}{RATE}))',
            ),
        ),
    ),
)


def dashboard(uid: str, title: str, panels: tuple[Panel, ...], *variables: dict[str, Any]) -> dict[str, Any]:
    """Grafana's document of a dashboard."""
    return {
        "uid": uid,
        "title": title,
        "tags": ["lexora"],
        "editable": True,
        "schemaVersion": 39,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source(), _variable("job", "label_values(lexora_active_requests, job)"), *variables]},
        "links": [{"type": "dashboards", "tags": ["lexora"], "title": "Lexora", "keepTime": True, "includeVars": True}],
        "panels": [_panel(number, panel, place) for number, (panel, place) in enumerate(_placed(panels), 1)],
    }


def _placed(panels: tuple[Panel, ...]) -> list[tuple[Panel, dict[str, int]]]:
    """From left to right, a new row where one is full."""
    placed, x, y, above = [], 0, 0, 0
    for panel in panels:
        height = HEIGHT if panel.kind in ("timeseries", "state-timeline") else 4
        if x + panel.width > WIDTH:
            x, y = 0, y + above
        placed.append((panel, {"x": x, "y": y, "w": panel.width, "h": height}))
        x, above = x + panel.width, height
    return placed


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    custom: dict[str, Any] = {}
    if panel.kind == "timeseries":
        custom = {"fillOpacity": 20 if panel.stacked else 5, "showPoints": "never"}
        custom["stacking"] = {"mode": "normal" if panel.stacked else "none"}
    options = {str(value): {"text": word, "color": colour} for value, word, colour in _whole(panel.words)}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": custom,
                "mappings": [{"type": "value", "options": options}] if options else [],
            },
            "overrides": [],
        },
        "options": {} if panel.kind != "stat" else {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"},
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for at, (legend, expression) in enumerate(panel.queries)
        ],
    }


def _whole(words: tuple[tuple[float, str, str], ...]) -> list[tuple[float | int, str, str]]:
    return [(int(value) if value.is_integer() else value, word, colour) for value, word, colour in words]


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
        "sort": 1,
    }


def documents() -> dict[str, str]:
    """Every file by name."""
    backend = _variable("backend", 'label_values(lexora_backend_health{job=~"$job"}, backend)')
    made = {
        "overview.json": dashboard("lexora-overview", "Lexora: overview", OVERVIEW),
        "backend.json": dashboard("lexora-backend", "Lexora: backends", BACKEND, backend),
    }
    return {name: json.dumps(document, indent=2) + "\n" for name, document in made.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in documents().items():
        (FOLDER / file).write_text(text)
