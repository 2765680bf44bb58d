"""Prometheus metrics of the router. Labels are bounded: models that nobody serves count as "other"."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from lexora_router.errors import RateLimited
from lexora_router.handler import Call
from lexora_router.layers.observe import CLIENT_GONE
from lexora_router.telemetry.account import hops, rejection, retries, wasted

# OpenTelemetry's buckets for GenAI durations, in seconds (semantic-conventions-genai, gen_ai.server.request.duration).
DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
# ... and for the time to the first token (gen_ai.server.time_to_first_token).
TTFT_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


class Metrics:
    """A recorder that fills the metrics of one registry."""

    def __init__(self, registry: CollectorRegistry, label: Callable[[str], str]) -> None:
        self._label = label
        self._active = 0
        self._requests = Counter("lexora_requests", "Finished calls.", ["endpoint", "model", "status"], registry=registry)
        self._duration = Histogram(
            "lexora_request_duration_seconds",
            "Time from receipt of a call to its end.",
            ["endpoint"],
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self._ttft = Histogram(
            "lexora_time_to_first_token_seconds",
            "Time from receipt of a streamed call to its first event.",
            ["model"],
            buckets=TTFT_BUCKETS,
            registry=registry,
        )
        self._input = Counter("lexora_tokens_input", "Input tokens, as engines counted them.", ["model"], registry=registry)
        self._output = Counter("lexora_tokens_output", "Output tokens, as engines counted them.", ["model"], registry=registry)
        self._cancelled = Counter(
            "lexora_cancelled_requests", "Calls whose client left before the end.", ["endpoint"], registry=registry
        )
        self._troubles = _Troubles(registry)
        active = Gauge("lexora_active_requests", "Calls under way.", registry=registry)
        active.set_function(lambda: self._active)
        self._children: dict[tuple[str, str, int], Counter] = {}
        self._per_model: dict[str, tuple[Counter, Counter, Histogram]] = {}
        self._per_path: dict[str, Histogram] = {}

    def begin(self, call: Call) -> None:
        """One more under way."""
        self._active += 1

    def end(self, call: Call, status: int, error: BaseException | None) -> None:
        """Count the finished call."""
        self._active -= 1
        receipt, model = call.receipt, self._label(call.model)
        self._request_child(call.path, model, status).inc()
        self._duration_child(call.path).observe(receipt.finished_at - call.started)
        read, written, ttft = self._model_children(model)
        if receipt.usage is not None:
            read.inc(receipt.usage.input_tokens)
            written.inc(receipt.usage.output_tokens)
        if call.stream and receipt.first_event_at:
            ttft.observe(receipt.first_event_at - call.started)
        if status == CLIENT_GONE:
            self._cancelled.labels(call.path).inc()
        if error is not None or receipt.attempts > 1 or receipt.fallback:
            self._troubles.count(call, status, error)

    # `labels()` takes a lock and builds a key; the children are kept, as many as there are label values.

    def _request_child(self, path: str, model: str, status: int) -> Counter:
        key = (path, model, status)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._requests.labels(path, model, str(status))
        return child

    def _duration_child(self, path: str) -> Histogram:
        child = self._per_path.get(path)
        if child is None:
            child = self._per_path[path] = self._duration.labels(path)
        return child

    def _model_children(self, model: str) -> tuple[Counter, Counter, Histogram]:
        children = self._per_model.get(model)
        if children is None:
            children = (self._input.labels(model), self._output.labels(model), self._ttft.labels(model))
            self._per_model[model] = children
        return children


class _Troubles:
    """Counters of what did not go straight; an ordinary call does not touch them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self._retries = counter("lexora_retries", "Attempts beyond the first of each call.")
        self._limited = counter("lexora_rate_limit_rejections", "Calls refused for their tenant's rate limit.")
        self._rejections = counter("lexora_rejections", "Calls that the router refused for want of room.", "reason")
        self._fallbacks = counter("lexora_fallbacks", "Times a call went on to another backend.", "from", "to", "reason")
        self._resumed = counter("lexora_streams_resumed", "Streams that went on at another endpoint after a break.")
        self._wasted = counter("lexora_tokens_wasted", "Output tokens of calls that failed, or whose client left.", "reason")

    def count(self, call: Call, status: int, error: BaseException | None) -> None:
        """Count the finished call."""
        receipt = call.receipt
        self._retries.inc(retries(receipt))
        for hop in hops(receipt):
            self._fallbacks.labels(*hop).inc()
        if receipt.resumed:
            self._resumed.inc()
        if reason := rejection(error):
            self._rejections.labels(reason).inc()
        if isinstance(error, RateLimited):
            self._limited.inc()
        if error is not None and (tokens := wasted(receipt)):
            self._wasted.labels("client_left" if status == CLIENT_GONE else "failed").inc(tokens)
