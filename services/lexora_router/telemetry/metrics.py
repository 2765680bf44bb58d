"""Prometheus metrics of the router. Labels are bounded: models that no backend serves count as "other".

What every call is counted in are plain counters, read when metrics are scraped: the client library's take a lock for each
addition.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from lexora_router.call import Call
from lexora_router.errors import RateLimited
from lexora_router.fleet.counters import Histogram
from lexora_router.telemetry.account import MAX_MODELS, OTHER, CallRecord, time_per_token

# OpenTelemetry's buckets for GenAI durations, in seconds (semantic-conventions-genai, gen_ai.server.request.duration).
DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
# ... and for the time to the first token (gen_ai.server.time_to_first_token).
TTFT_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
# ... and for the time per token after it (gen_ai.server.time_per_output_token).
PER_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)

Labels = TypeVar("Labels", bound=tuple[str, ...])


class _Tokens:
    """Tokens of one model, as engines counted them."""

    __slots__ = ("cached", "read", "written")

    def __init__(self) -> None:
        self.read = self.written = self.cached = 0


class _Calls:
    """The finished calls of one path, model and status; `seconds` are those of all calls of the path."""

    __slots__ = ("number", "seconds", "tokens")

    def __init__(self, seconds: Histogram) -> None:
        self.number = 0
        self.seconds = seconds
        self.tokens: _Tokens | None = None  # of the model, once an engine has counted some


class Metrics:
    """The book that fills the metrics of one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._active = 0
        self._calls: dict[tuple[str, str, int], _Calls] = {}
        self._seconds: dict[tuple[str], Histogram] = {}
        self._tokens: dict[tuple[str], _Tokens] = {}
        self._ttft: dict[tuple[str, str], Histogram] = {}
        self._per_token: dict[tuple[str, str], Histogram] = {}
        self._models: set[str] = set()
        registry.register(self)
        self._cancelled = Counter(
            "lexora_cancelled_requests", "Calls whose client left before the end.", ["endpoint"], registry=registry
        )
        self._troubles = _Troubles(registry)
        active = Gauge("lexora_active_requests", "Calls under way.", registry=registry)
        active.set_function(lambda: self._active)

    def begin(self, call: Call) -> None:
        """One more under way."""
        self._active += 1

    def end(self, record: CallRecord) -> None:
        """Count the finished call."""
        self._active -= 1
        path, label, status, usage = record.path, record.label, record.status, record.receipt.usage
        calls = self._calls.get((path, label, status)) or self._keep(path, self._model(label), status)
        calls.number += 1
        calls.seconds.add(record.seconds)
        if usage is not None:
            tokens = calls.tokens or self._tokens_of(calls, self._model(label))
            tokens.read += usage.input_tokens
            tokens.written += usage.output_tokens
            tokens.cached += usage.cached_tokens
        if record.call.stream and record.receipt.first_event_at:
            self._time_stream(self._model(label), record.call)
        if record.cancelled:
            self._cancelled.labels(path).inc()
        if not record.straight:
            self._troubles.count(record)

    def collect(self) -> Iterable[Metric]:
        """What every call is counted in."""
        requests = CounterMetricFamily("lexora_requests", "Finished calls.", labels=["endpoint", "model", "status"])
        for (path, model, status), calls in self._calls.items():
            requests.add_metric([path, model, str(status)], calls.number)
        yield requests
        yield _histogram(
            "lexora_request_duration_seconds", "Time from receipt of a call to its end.", ["endpoint"], self._seconds
        )
        by = ["backend", "model"]
        yield _histogram(
            "lexora_time_to_first_token_seconds", "Time from receipt of a streamed call to its first event.", by, self._ttft
        )
        yield _histogram(
            "lexora_time_per_output_token_seconds",
            "Time between the tokens of a streamed call, from its first to its end; a mean per call.",
            by,
            self._per_token,
        )
        for name, text, field in (
            ("input", "Input tokens, as engines counted them.", "read"),
            ("output", "Output tokens, as engines counted them.", "written"),
            ("cached", "Input tokens that came from engines' prefix caches.", "cached"),
        ):
            family = CounterMetricFamily(f"lexora_tokens_{name}", text, labels=["model"])
            for labels, tokens in self._tokens.items():
                family.add_metric(labels, getattr(tokens, field))
            yield family

    def _keep(self, path: str, model: str, status: int) -> _Calls:
        calls = self._calls.get((path, model, status))
        if calls is None:
            seconds = self._seconds.setdefault((path,), Histogram(DURATION_BUCKETS))
            calls = self._calls[path, model, status] = _Calls(seconds)
        return calls

    def _tokens_of(self, calls: _Calls, model: str) -> _Tokens:
        tokens = calls.tokens = self._tokens.setdefault((model,), _Tokens())
        return tokens

    def _time_stream(self, model: str, call: Call) -> None:
        receipt = call.receipt
        key = (receipt.backend, model)
        ttft = self._ttft.get(key)
        if ttft is None:
            ttft = self._ttft[key] = Histogram(TTFT_BUCKETS)
            self._per_token[key] = Histogram(PER_TOKEN_BUCKETS)
        ttft.add(receipt.first_event_at - call.started)
        if (each := time_per_token(receipt)) is not None:
            self._per_token[key].add(each)

    def _model(self, name: str) -> str:
        if name not in self._models:
            if len(self._models) >= MAX_MODELS:
                return OTHER
            self._models.add(name)
        return name


def _histogram(name: str, text: str, labels: Sequence[str], values: dict[Labels, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for each, histogram in values.items():
        family.add_metric(each, histogram.cumulative(), histogram.total)
    return family


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
