"""A collector of OpenTelemetry's protocol in this process: what really arrives, taken apart for assertions."""

import secrets
import threading
import time
from collections.abc import Callable, Iterable
from concurrent import futures
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

SECONDS = 10.0
_T = TypeVar("_T")
_KINDS = {Span.SPAN_KIND_SERVER: "server", Span.SPAN_KIND_CLIENT: "client", Span.SPAN_KIND_INTERNAL: "internal"}


@dataclass(frozen=True)
class Seen:
    """One span; instants in seconds, ids in hexadecimal digits."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start: float
    end: float
    failed: bool
    remote: bool
    attributes: dict[str, Any]
    events: tuple[str, ...]


class Client:
    """The span of a client, and the headers that tell of it."""

    def __init__(self, flags: str = "01") -> None:
        self.trace_id, self.span_id = secrets.token_hex(16), secrets.token_hex(8)
        self.headers = {"traceparent": f"00-{self.trace_id}-{self.span_id}-{flags}", "tracestate": "vendor=1"}


class Trace:
    """The spans of one trace, in the order of their begin."""

    def __init__(self, spans: list[Seen]) -> None:
        self.spans = sorted(spans, key=lambda span: (span.start, span.kind != "server"))

    @property
    def root(self) -> Seen:
        """The call's own span."""
        (found,) = (span for span in self.spans if span.kind == "server")
        return found

    @property
    def attempts(self) -> list[Seen]:
        return [span for span in self.spans if span.kind == "client"]

    @property
    def waits(self) -> list[Seen]:
        return [span for span in self.spans if span.kind == "internal"]


@dataclass
class Receiver:
    """`with` it; `address` is its endpoint. With `refuses` it answers that code, with `hangs` not before it ends."""

    port: int = 0
    refuses: grpc.StatusCode | None = None
    hangs: bool = False
    spans: list[Seen] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    exports: list[list[Metric]] = field(default_factory=list)
    asked: int = 0

    def __enter__(self) -> Self:
        self._end = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(4), options=(("grpc.so_reuseport", 0),))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(self), self._server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(self), self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._end.set()
        self._server.stop(grace=0).wait()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def config(self, **keys: Any) -> dict[str, Any]:
        """The section of a gateway that exports here."""
        return {"otlp_endpoint": self.address, "service_name": "lexora-test", **keys}

    def trace(self, trace_id: str, count: int) -> "Trace":
        """All of a trace, when it has so many spans."""
        return Trace(until(lambda: [span for span in self.spans if span.trace_id == trace_id], lambda all_: len(all_) >= count))

    def points(self, name: str) -> list[tuple[dict[str, Any], HistogramDataPoint]]:
        """The newest points of a histogram, each with its attributes."""
        for metrics in reversed(self.exports):
            for metric in metrics:
                if metric.name == name:
                    return [(values(point.attributes), point) for point in metric.histogram.data_points]
        return []

    def answer(self, context: grpc.ServicerContext) -> None:
        self.asked += 1
        if self.hangs:
            self._end.wait(SECONDS)
        if self.refuses is not None:
            context.abort(self.refuses, "as the test wants it")


def until(look: Callable[[], _T], enough: Callable[[_T], Any] = bool, seconds: float = SECONDS) -> _T:
    """What `look` gives as soon as that is enough; fails when it never is."""
    end = time.monotonic() + seconds
    while not enough(found := look()):
        assert time.monotonic() < end, f"not enough: {found!r}"
        time.sleep(0.02)
    return found


def values(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: AnyValue) -> Any:
    if value.HasField("array_value"):
        return [_value(item) for item in value.array_value.values]
    return getattr(value, str(value.WhichOneof("value")))


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def Export(self, request: Any, context: Any) -> Any:
        self._receiver.answer(context)
        self._receiver.metadata = dict(context.invocation_metadata())
        for of_resource in request.resource_spans:
            self._receiver.resource = values(of_resource.resource.attributes)
            self._receiver.spans += [_seen(span) for scope in of_resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def Export(self, request: Any, context: Any) -> Any:
        self._receiver.answer(context)
        scopes = [scope for of_resource in request.resource_metrics for scope in of_resource.scope_metrics]
        self._receiver.exports.append([metric for scope in scopes for metric in scope.metrics])
        return metrics_service_pb2.ExportMetricsServiceResponse()


def _seen(span: Span) -> Seen:
    return Seen(
        name=span.name,
        kind=_KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start=span.start_time_unix_nano / 1e9,
        end=span.end_time_unix_nano / 1e9,
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        remote=bool(span.flags & 0x200),
        attributes=values(span.attributes),
        events=tuple(event.name for event in span.events),
    )
