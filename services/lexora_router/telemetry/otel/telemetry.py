"""The whole export, as an endpoint in the configuration sets it in motion. No provider is global."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Timer
from typing import Any
from uuid import uuid4

import grpc
import structlog
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from yarl import URL

from lexora_router.config import TelemetryConfig
from lexora_router.config.telemetry import HEADERS, RESOURCE, pairs
from lexora_router.layers.observe import Recorder
from lexora_router.telemetry.harmless import Harmless
from lexora_router.telemetry.names import BoundedNames
from lexora_router.telemetry.otel.complaints import Complaints
from lexora_router.telemetry.otel.metrics import GenAiMetrics
from lexora_router.telemetry.otel.prompts import captured
from lexora_router.telemetry.otel.spans import SpanQueue
from lexora_router.telemetry.otel.tracer import SpanIds, Tracer
from lexora_router.version import __version__

CLOSE_SECONDS = 5.0
GATHER_SECONDS = 1.0
MAX_QUEUED, MAX_BATCH = 8192, 512
# With prompts a span may have 100 KB, and collectors take 4 MiB at once by default.
MAX_QUEUED_PROMPTS, MAX_BATCH_PROMPTS = 1024, 32

_log = structlog.get_logger("lexora.telemetry")


class Telemetry:
    """Records calls and exports what it recorded, from threads of the SDK; `close` it off the event loop.

    Raises OSError when the file of authorities cannot be read.
    """

    def __init__(
        self, config: TelemetryConfig, names: BoundedNames, clock: Callable[[], float], environ: Mapping[str, str] = os.environ
    ) -> None:
        assert config.otlp_endpoint is not None
        resource, where = _resource(config, environ), _destination(config, environ)
        self._exporters = OTLPSpanExporter(**where), OTLPMetricExporter(**where)
        spans, metrics = self._exporters
        interval = config.metrics_interval
        self._complaints = Complaints(config.otlp_endpoint, lambda: self.spans.dropped)
        prompts = captured if config.capture_prompts else None
        most, batch = (MAX_QUEUED_PROMPTS, MAX_BATCH_PROMPTS) if prompts else (MAX_QUEUED, MAX_BATCH)
        seconds = min(GATHER_SECONDS, interval or GATHER_SECONDS)
        self.spans = SpanQueue(spans, self._complaints.over, most=most, batch=batch, seconds=seconds)
        sampler, ids = ParentBased(TraceIdRatioBased(config.sample_ratio)), SpanIds()
        self._tracers = TracerProvider(sampler, resource, shutdown_on_exit=False, id_generator=ids)
        self._tracers.add_span_processor(self.spans)
        readers = [] if interval is None else [PeriodicExportingMetricReader(metrics, interval * 1000)]
        self._meters = MeterProvider(readers, resource, AlwaysOffExemplarFilter(), shutdown_on_exit=False)
        self._complaints.listen()
        tracer = Tracer(self._tracers.get_tracer("lexora", __version__), ids, names, prompts=prompts, clock=clock)
        meter = self._meters.get_meter("lexora", __version__)
        recorders: tuple[Recorder, ...] = (tracer,) if interval is None else (tracer, GenAiMetrics(names, meter))
        self.recorders: tuple[Recorder, ...] = tuple(map(Harmless, recorders))

    def close(self) -> None:
        """Export what is left; blocks for some seconds at most."""
        late = Timer(CLOSE_SECONDS, self._hang_up)
        late.start()
        self._tracers.shutdown()
        self._meters.shutdown()
        late.cancel()
        self._complaints.close()
        if self.spans.dropped:
            _log.warning("telemetry_dropped", spans=self.spans.dropped)

    def _hang_up(self) -> None:
        """Give up the exports under way, and all that wait behind them."""
        for exporter in self._exporters:
            exporter.shutdown()


def _resource(config: TelemetryConfig, environ: Mapping[str, str]) -> Resource:
    """The resource that spans and metrics come from."""
    named = {"service.name": config.service_name} if config.service_name else {}
    named_here = {"service.name": "lexora", "service.version": __version__, "service.instance.id": str(uuid4())}
    return Resource.create(named_here | pairs(environ.get(RESOURCE, ""), headers=False) | named)


def _destination(config: TelemetryConfig, environ: Mapping[str, str]) -> dict[str, Any]:
    """Where both exporters send, as their arguments."""
    url = URL(config.otlp_endpoint or "")
    credentials = None
    if url.scheme == "https":
        credentials = grpc.ssl_channel_credentials(Path(config.ca_file).read_bytes() if config.ca_file else None)
    return {
        "endpoint": f"{url.scheme}://{target_of(url)}",
        "insecure": credentials is None,
        "credentials": credentials,
        "headers": pairs(environ.get(HEADERS, ""), headers=True),
    }


def target_of(url: URL) -> str:
    """Host and port, as gRPC names them: without one it would take 443."""
    return url.raw_authority if url.explicit_port else f"{url.raw_authority}:{url.port}"
