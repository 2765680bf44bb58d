"""The hand-framed messages are what OTLP's own classes read."""

from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.support.otlp import values

from lexora_router.telemetry.otel.encode import (
    CLIENT,
    SERVER,
    SpanRecord,
    TraceRequest,
    fill_histogram,
    metrics_request,
    resource,
)

IDS = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7")


def read(*spans: SpanRecord) -> list[Span]:
    request = ExportTraceServiceRequest.FromString(
        TraceRequest(resource({"service.name": "s"})).of([s.framed() for s in spans])
    )
    (of_resource,) = request.resource_spans
    assert values(of_resource.resource.attributes) == {"service.name": "s"}
    (scope,) = of_resource.scope_spans
    assert scope.scope.name == "lexora"
    return list(scope.spans)


def test_a_span() -> None:
    record = SpanRecord("chat m", SERVER, IDS, 1_000, 2_000, remote=True)
    record.put({"text": "é", "yes": True, "no": False, "one": 1, "big": 2**62, "part": 0.5, "all": ("a", "b")})
    record.event("first_token", 1_500)
    record.fail()
    (span,) = read(record)
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == IDS
    assert (span.name, span.kind, span.start_time_unix_nano, span.end_time_unix_nano) == ("chat m", SERVER, 1_000, 2_000)
    found: dict[str, Any] = values(span.attributes)
    assert found == {"text": "é", "yes": True, "no": False, "one": 1, "big": 2**62, "part": 0.5, "all": ["a", "b"]}
    assert [type(found[key]) for key in ("yes", "one", "part")] == [bool, int, float]
    assert [(event.name, event.time_unix_nano) for event in span.events] == [("first_token", 1_500)]
    assert (span.status.code, span.flags) == (Status.STATUS_CODE_ERROR, 0x301)


def test_a_span_with_nothing_but_its_place() -> None:
    (span,) = read(SpanRecord("x", CLIENT, (IDS[0], IDS[1], ""), 2_000, 1_000))
    assert (span.parent_span_id, span.status.code, span.flags) == (b"", Status.STATUS_CODE_UNSET, 0x101)
    assert span.end_time_unix_nano == 2_000  # a clock that was set back makes no negative time


@pytest.mark.parametrize("length", [0, 1, 100, 127, 128, 129, 16_383, 16_384, 3_000_000])
def test_any_length(length: int) -> None:
    first, second = SpanRecord("a", CLIENT, IDS, 1, 2), SpanRecord("b", CLIENT, IDS, 1, 2)
    first.put({"text": "x" * length})
    second.put({"n": length})
    found = read(first, second)
    assert [values(span.attributes) for span in found] == [{"text": "x" * length}, {"n": length}]


def test_equal_values_of_different_types_stay_apart() -> None:
    records = []
    for value in (1, True, 1.0, 0, False, 0.0):
        records.append(SpanRecord("a", CLIENT, IDS, 1, 2))
        records[-1].put({"same": value})
    found = [values(span.attributes)["same"] for span in read(*records)]
    assert list(map(repr, found)) == ["1", "True", "1.0", "0", "False", "0.0"]


def test_a_histogram() -> None:
    metric = fill_histogram(Metric(name="n", unit="s"), (0.1, 1.0), [({"k": "v"}, [1, 2, 3], 9.5)], (10, 20))
    request = ExportMetricsServiceRequest.FromString(metrics_request(resource({"service.name": "s"}), [metric]))
    (found,) = request.resource_metrics[0].scope_metrics[0].metrics
    (point,) = found.histogram.data_points
    assert (point.count, point.sum, list(point.bucket_counts), list(point.explicit_bounds)) == (6, 9.5, [1, 2, 3], [0.1, 1.0])
    assert (values(point.attributes), point.start_time_unix_nano, point.time_unix_nano) == ({"k": "v"}, 10, 20)
