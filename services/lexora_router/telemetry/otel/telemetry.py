"""All of it together: what an endpoint in the configuration sets in motion."""

import os
from collections.abc import Callable, Mapping
from uuid import uuid4

from lexora_router.config import TelemetryConfig
from lexora_router.config.telemetry import HEADERS, RESOURCE, pairs
from lexora_router.layers.observe import Recorder
from lexora_router.telemetry.export import Names
from lexora_router.telemetry.otel.encode import TraceRequest, resource
from lexora_router.telemetry.otel.exporter import Collector, Exporter
from lexora_router.telemetry.otel.metrics import GenAiMetrics
from lexora_router.telemetry.otel.prompts import captured
from lexora_router.telemetry.otel.tracer import Tracer
from lexora_router.version import __version__


class Telemetry:
    """Records calls and exports what it recorded; `start` it, and `close` it off the event loop."""

    def __init__(
        self, config: TelemetryConfig, names: Names, clock: Callable[[], float], environ: Mapping[str, str] = os.environ
    ) -> None:
        assert config.otlp_endpoint is not None
        who = resource(
            {
                "service.name": config.service_name or "lexora",
                "service.version": __version__,
                "service.instance.id": str(uuid4()),
                "telemetry.sdk.name": "lexora",
                "telemetry.sdk.language": "python",
                "telemetry.sdk.version": __version__,
            }
            | pairs(environ.get(RESOURCE, ""), headers=False)
            | ({"service.name": config.service_name} if config.service_name else {})
        )
        metrics = GenAiMetrics(names, who)
        collector = Collector(config.otlp_endpoint, pairs(environ.get(HEADERS, ""), headers=True), config.ca_file)
        self.exporter = Exporter(collector, TraceRequest(who).of, metrics.request, config.metrics_interval)
        prompts = captured if config.capture_prompts else None
        tracer = Tracer(self.exporter.add, names, ratio=config.sample_ratio, prompts=prompts, clock=clock)
        self.recorders: tuple[Recorder, ...] = (tracer, metrics)

    def start(self) -> None:
        """Begin to export. Raises OSError."""
        self.exporter.start()

    def close(self) -> None:
        """Export what is left; blocks for some seconds at most."""
        self.exporter.close()
