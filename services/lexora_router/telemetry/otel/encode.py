"""Spans and metrics as messages of OTLP, whose Python classes are all that is needed of OpenTelemetry."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from lexora_router.version import __version__

Value = str | bool | int | float | tuple[str, ...]
Attributes = Mapping[str, Value]
Point = tuple[Attributes, Sequence[int], float]  # counts by bucket, and the sum of all values

if TYPE_CHECKING:
    Kind: TypeAlias = Span.SpanKind.ValueType

# https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto
INTERNAL, SERVER, CLIENT = Span.SPAN_KIND_INTERNAL, Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200
# Field numbers with wire type 2: ExportTraceServiceRequest.resource_spans, ResourceSpans.scope_spans, ScopeSpans.spans,
# Span.attributes. Fields that are joined are one message.
_RESOURCE_SPANS, _SCOPE_SPANS, _SPANS, _ATTRIBUTES = b"\x0a", b"\x12", b"\x12", b"\x4a"
MAX_KNOWN_CHARS = 128
_SCOPE = InstrumentationScope(name="lexora", version=__version__)


class SpanRecord:
    """One span under construction; instants in nanoseconds since 1970, ids in hexadecimal digits."""

    __slots__ = ("_attributes", "_span")

    def __init__(
        self, name: str, kind: "Kind", ids: tuple[str, str, str], start: int, end: int, *, remote: bool = False
    ) -> None:
        """`ids` are those of the trace, the span and its parent ("" without one); `remote`: the parent is another service's."""
        trace_id, span_id, parent_id = ids
        self._span = Span(
            trace_id=bytes.fromhex(trace_id),
            span_id=bytes.fromhex(span_id),
            parent_span_id=bytes.fromhex(parent_id),
            name=name,
            kind=kind,
            start_time_unix_nano=start,
            end_time_unix_nano=max(start, end),
            flags=1 | _HAS_IS_REMOTE | (_IS_REMOTE if remote else 0),
        )
        self._attributes: list[bytes] = []

    def put(self, attributes: Attributes) -> None:
        """Add attributes."""
        for key, value in attributes.items():
            known = not isinstance(value, str) or len(value) <= MAX_KNOWN_CHARS
            self._attributes.append(_known_pair(key, value) if known else _framed_pair(key, value))

    def event(self, name: str, at: int) -> None:
        """Add an event."""
        self._span.events.add(name=name, time_unix_nano=at)

    def fail(self) -> None:
        """Mark the span as failed."""
        self._span.status.code = Status.STATUS_CODE_ERROR

    def framed(self) -> bytes:
        """The span as a field of its message."""
        return _framed(_SPANS, self._span.SerializeToString() + b"".join(self._attributes))


def resource(attributes: Attributes) -> Resource:
    """Who speaks."""
    message = Resource()
    message.attributes.extend(_pair(*item) for item in attributes.items())
    return message


class TraceRequest:
    """Makes export requests of framed spans; the messages around them are the same each time."""

    def __init__(self, who: Resource) -> None:
        # Fields 1 of ResourceSpans and ScopeSpans.
        self._resource = _framed(b"\x0a", who.SerializeToString())
        self._scope = _framed(b"\x0a", _SCOPE.SerializeToString())

    def of(self, spans: Iterable[bytes]) -> bytes:
        """ExportTraceServiceRequest, as bytes."""
        scope = _framed(_SCOPE_SPANS, self._scope + b"".join(spans))
        return _framed(_RESOURCE_SPANS, self._resource + scope)


def fill_histogram(metric: Metric, bounds: Sequence[float], points: Iterable[Point], times: tuple[int, int]) -> Metric:
    """The metric with its points since the start; `times` are that and now, in nanoseconds since 1970."""
    metric.histogram.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    for attributes, counts, total in points:
        point = metric.histogram.data_points.add(
            start_time_unix_nano=times[0],
            time_unix_nano=times[1],
            count=sum(counts),
            sum=total,
            bucket_counts=counts,
            explicit_bounds=bounds,
        )
        point.attributes.extend(_pair(*item) for item in attributes.items())
    return metric


def metrics_request(who: Resource, metrics: Iterable[Metric]) -> bytes:
    """ExportMetricsServiceRequest, as bytes."""
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add(resource=who)
    of_resource.scope_metrics.add(scope=_SCOPE, metrics=metrics)
    return request.SerializeToString()


def _pair(key: str, value: Value) -> KeyValue:
    pair = KeyValue(key=key)
    match value:
        case str():
            pair.value.string_value = value
        case bool():
            pair.value.bool_value = value
        case int():
            pair.value.int_value = value
        case float():
            pair.value.double_value = value
        case _:
            for item in value:
                pair.value.array_value.values.add(string_value=item)
    return pair


def _framed_pair(key: str, value: Value) -> bytes:
    """An attribute of a span, as a field of its message."""
    return _framed(_ATTRIBUTES, _pair(key, value).SerializeToString())


# Most attributes are the same in most spans: the bytes of what came lately are kept. `typed`, since 1 == True.
_known_pair = lru_cache(maxsize=4096, typed=True)(_framed_pair)


def _framed(tag: bytes, data: bytes) -> bytes:
    """A length-delimited field of a message."""
    length, varint = len(data), bytearray(tag)
    while length > 0x7F:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    varint.append(length)
    return bytes(varint) + data
