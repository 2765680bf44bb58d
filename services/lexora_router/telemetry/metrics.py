"""Prometheus metrics of the router. Labels are bounded: models that no backend serves count as "other"."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from lexora_contract.answer import Usage
from lexora_router.call import Call
from lexora_router.errors import RateLimited
from lexora_router.telemetry.account import MAX_MODELS, OTHER, CallRecord, time_per_token

# OpenTelemetry's buckets for GenAI durations, in seconds (semantic-conventions-genai, gen_ai.server.request.duration).
DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
# ... and for the time to the first token (gen_ai.server.time_to_first_token).
TTFT_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
# ... and for the time per token after it (gen_ai.server.time_per_output_token).
PER_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)


class Metrics:
    """The book that fills the metrics of one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
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
            ["backend", "model"],
            buckets=TTFT_BUCKETS,
            registry=registry,
        )
        self._per_token = Histogram(
            "lexora_time_per_output_token_seconds",
            "Time between the tokens of a streamed call, from its first to its end; a mean per call.",
            ["backend", "model"],
            buckets=PER_TOKEN_BUCKETS,
            registry=registry,
        )
        self._input = Counter("lexora_tokens_input", "Input tokens, as engines counted them.", ["model"], registry=registry)
        self._output = Counter("lexora_tokens_output", "Output tokens, as engines counted them.", ["model"], registry=registry)
        self._cached = Counter(
            "lexora_tokens_cached",
            "Input tokens that came from engines' prefix caches.",
            ["model"],
            registry=registry,
        )
        self._cancelled = Counter(
            "lexora_cancelled_requests", "Calls whose client left before the end.", ["endpoint"], registry=registry
        )
        self._troubles = _Troubles(registry)
        active = Gauge("lexora_active_requests", "Calls under way.", registry=registry)
        active.set_function(lambda: self._active)
        self._models: set[str] = set()
        self._children: dict[tuple[str, str, int], tuple[Callable[[], None], Callable[[float], None]]] = {}
        self._per_model: dict[str, tuple[Counter, Counter, Counter]] = {}
        self._streams: dict[tuple[str, str], tuple[Histogram, Histogram]] = {}

    def begin(self, call: Call) -> None:
        """One more under way."""
        self._active += 1

    def end(self, record: CallRecord) -> None:
        """Count the finished call."""
        self._active -= 1
        receipt, model, path = record.receipt, self._model(record.label), record.path
        count, observe = self._children.get((path, model, record.status)) or self._keep(path, model, record.status)
        count()
        observe(record.seconds)
        if receipt.usage is not None:
            self._count_tokens(model, receipt.usage)
        if record.call.stream and receipt.first_event_at:
            self._time_stream(model, record.call)
        if record.cancelled:
            self._cancelled.labels(path).inc()
        if not record.straight:
            self._troubles.count(record)

    # `labels()` takes a lock and builds a key; the children are kept, as many as there are label values.

    def _keep(self, path: str, model: str, status: int) -> tuple[Callable[[], None], Callable[[float], None]]:
        children = (self._requests.labels(path, model, str(status)).inc, self._duration.labels(path).observe)
        self._children[path, model, status] = children
        return children

    def _count_tokens(self, model: str, usage: Usage) -> None:
        children = self._per_model.get(model)
        if children is None:
            children = (self._input.labels(model), self._output.labels(model), self._cached.labels(model))
            self._per_model[model] = children
        read, written, cached = children
        read.inc(usage.input_tokens)
        written.inc(usage.output_tokens)
        if usage.cached_tokens:
            cached.inc(usage.cached_tokens)

    def _time_stream(self, model: str, call: Call) -> None:
        receipt = call.receipt
        key = (receipt.backend, model)
        children = self._streams.get(key)
        if children is None:
            children = self._streams[key] = (self._ttft.labels(*key), self._per_token.labels(*key))
        ttft, per_token = children
        ttft.observe(receipt.first_event_at - call.started)
        if (each := time_per_token(receipt)) is not None:
            per_token.observe(each)

    def _model(self, name: str) -> str:
        if name not in self._models:
            if len(self._models) >= MAX_MODELS:
                return OTHER
            self._models.add(name)
        return name


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
        self._wasted = counter("lexora_tokens_wasted", "Output tokens that were made for nothing.", "reason")

    def count(self, record: CallRecord) -> None:
        """Count the finished call."""
        self._retries.inc(record.retries)
        for hop in record.receipt.hops:
            self._fallbacks.labels(*hop).inc()
        if record.receipt.resumed:
            self._resumed.inc()
        if record.rejection:
            self._rejections.labels(record.rejection).inc()
        if isinstance(record.error, RateLimited):
            self._limited.inc()
        for why, tokens in record.wasted.items():
            self._wasted.labels(why).inc(tokens)
