"""The export of spans and metrics where the configuration asks for it. It is an extra, so no other module imports the SDK."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, Metric

if TYPE_CHECKING:
    from lexora_router.config import TelemetryConfig
    from lexora_router.telemetry.names import BoundedNames
    from lexora_router.telemetry.otel.telemetry import Telemetry


def telemetry_of(config: TelemetryConfig, names: BoundedNames, clock: Callable[[], float]) -> Telemetry | None:
    """What the section asks for; None without an endpoint. Raises OSError for what only shows when it is set in motion."""
    if config.otlp_endpoint is None:
        return None
    from lexora_router.telemetry.otel.telemetry import Telemetry  # noqa: PLC0415 - optional

    try:
        return Telemetry(config, names, clock)
    except ValueError as error:  # the SDK reads further variables of its own
        raise OSError(f"a variable of OpenTelemetry (OTEL_...) cannot be used: {error}") from error


class SpanCollector:
    """The metrics of the export, read at scrape time; all 0 without one."""

    def __init__(self, telemetry: Telemetry | None) -> None:
        self._spans = telemetry.spans if telemetry is not None else None

    def collect(self) -> Iterable[Metric]:
        """What became of spans."""
        spans = CounterMetricFamily("lexora_spans", "Spans of traces, by what became of them.", labels=["outcome"])
        spans.add_metric(["exported"], self._spans.exported if self._spans else 0)
        spans.add_metric(["dropped"], self._spans.dropped if self._spans else 0)
        return (spans,)
