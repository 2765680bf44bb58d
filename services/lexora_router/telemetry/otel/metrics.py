"""Metrics under the names of OpenTelemetry's conventions for generative AI."""

from collections.abc import Sequence

from opentelemetry.metrics import Histogram, Meter

from lexora_router.call import Call
from lexora_router.telemetry.metrics import DURATION_BUCKETS, TTFT_BUCKETS
from lexora_router.telemetry.names import BoundedNames
from lexora_router.telemetry.otel.conventions import error_type, operation

# The conventions' buckets: seconds per token, and tokens.
TPOT_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKEN_BUCKETS = tuple(float(4**power) for power in range(14))


class GenAiMetrics:
    """A recorder of finished calls."""

    def __init__(self, names: BoundedNames, meter: Meter) -> None:
        self._names = names

        def made(name: str, unit: str, description: str, bounds: Sequence[float]) -> Histogram:
            return meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=bounds)

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
        receipt, usage = call.receipt, call.receipt.usage
        key = {"gen_ai.operation.name": operation(call.path), "gen_ai.request.model": self._names.label(call.model)}
        if provider := self._names.provider(receipt.backend):
            key["gen_ai.provider.name"] = provider
        failure = {} if error is None else {"error.type": error_type(error)}
        self._duration.record(receipt.finished_at - call.started, key | failure)
        if usage is not None:
            self._tokens.record(usage.input_tokens, key | {"gen_ai.token.type": "input"})
            self._tokens.record(usage.output_tokens, key | {"gen_ai.token.type": "output"})
        if call.stream and receipt.first_event_at and error is None:
            self._ttft.record(receipt.first_event_at - call.started, key)
            if usage is not None and usage.output_tokens > 1:
                self._tpot.record((receipt.finished_at - receipt.first_event_at) / (usage.output_tokens - 1), key)
