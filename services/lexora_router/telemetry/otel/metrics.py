"""Metrics under the names of OpenTelemetry's conventions for generative AI, kept here and read by the exporter."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from lexora_router.backends.tally import Histogram
from lexora_router.handler import Call
from lexora_router.telemetry.export import Names
from lexora_router.telemetry.metrics import DURATION_BUCKETS, TTFT_BUCKETS
from lexora_router.telemetry.otel.conventions import error_type, operation
from lexora_router.telemetry.otel.encode import Point, Value, fill_histogram, metrics_request

# The conventions' buckets: seconds per token, and tokens.
TPOT_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKEN_BUCKETS = tuple(float(4**power) for power in range(14))


class Key(NamedTuple):
    """What values are kept apart by; each has a bound."""

    operation: str
    provider: str
    model: str
    error: str = ""
    tokens: str = ""

    def attributes(self) -> dict[str, Value]:
        """The same by the conventions' names."""
        names = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "error.type", "gen_ai.token.type")
        return {name: value for name, value in zip(names, self, strict=True) if value}


@dataclass(frozen=True, slots=True)
class Instrument:
    """One histogram: how it is called, and its values by key."""

    name: str
    unit: str
    description: str
    bounds: Sequence[float]
    values: dict[Key, Histogram]

    def add(self, key: Key, value: float) -> None:
        """Count one value."""
        values = self.values.get(key)
        if values is None:
            values = self.values[key] = Histogram(self.bounds)
        values.add(value)


class GenAiMetrics:
    """A recorder of finished calls; `request` is for another thread, and may miss a call that ends meanwhile."""

    def __init__(self, names: Names, who: Resource) -> None:
        self._names = names
        self._who = who
        self._started = time.time_ns()

        def made(name: str, unit: str, description: str, bounds: Sequence[float]) -> Instrument:
            return Instrument(name, unit, description, bounds, {})

        self._duration = made("gen_ai.server.request.duration", "s", "From receipt of a call to its end.", DURATION_BUCKETS)
        self._ttft = made("gen_ai.server.time_to_first_token", "s", "Of streams that ended well.", TTFT_BUCKETS)
        self._tpot = made(
            "gen_ai.server.time_per_output_token", "s", "After the first, of streams that ended well.", TPOT_BUCKETS
        )
        self._tokens = made("gen_ai.client.token.usage", "{token}", "As engines counted them.", TOKEN_BUCKETS)

    def begin(self, call: Call) -> None:
        """Nothing: a call counts at its end."""

    def end(self, call: Call, status: int, error: BaseException | None) -> None:
        """Count the finished call, unless it was refused before it was known what it asked."""
        if not call.path:
            return
        receipt = call.receipt
        key = Key(operation(call.path), self._names.provider(receipt.backend), self._names.label(call.model))
        self._duration.add(key if error is None else key._replace(error=error_type(error)), receipt.finished_at - call.started)
        usage = receipt.usage
        if usage is not None:
            self._tokens.add(key._replace(tokens="input"), usage.input_tokens)
            self._tokens.add(key._replace(tokens="output"), usage.output_tokens)
        if call.stream and receipt.first_event_at and error is None:
            self._ttft.add(key, receipt.first_event_at - call.started)
            if usage is not None and usage.output_tokens > 1:
                self._tpot.add(key, (receipt.finished_at - receipt.first_event_at) / (usage.output_tokens - 1))

    def request(self) -> bytes:
        """Everything since the start, to be sent; empty when that is nothing."""
        times = (self._started, time.time_ns())
        instruments = (self._duration, self._ttft, self._tpot, self._tokens)
        metrics = [_metric(each, times) for each in instruments if each.values]
        return metrics_request(self._who, metrics) if metrics else b""


def _metric(instrument: Instrument, times: tuple[int, int]) -> Metric:
    metric = Metric(name=instrument.name, unit=instrument.unit, description=instrument.description)
    return fill_histogram(metric, instrument.bounds, _points(instrument), times)


def _points(instrument: Instrument) -> list[Point]:
    return [(key.attributes(), values.counts[:], values.total) for key, values in list(instrument.values.items())]
