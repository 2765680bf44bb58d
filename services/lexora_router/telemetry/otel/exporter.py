"""The way to the collector: a thread behind a bounded queue, so that nothing that serves a call ever waits for it."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import grpc
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from yarl import URL

TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
MAX_QUEUED_BYTES = 16 * 2**20
# Collectors take 4 MiB at once by default.
MAX_REQUEST_BYTES = 2**20
GATHER_SECONDS = 1.0
CALL_SECONDS = 10.0
CLOSE_SECONDS = 5.0
WARN_SECONDS = 60.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
# https://opentelemetry.io/docs/specs/otlp/#failures: what passes by waiting.
_PASSING = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)

_Call = Callable[..., bytes]  # a unary rpc of bytes
_log = structlog.get_logger("lexora.telemetry")


@dataclass(frozen=True, slots=True)
class Collector:
    """Where to send: `endpoint` is http://host:port, or https with the authorities in a PEM file, else the system's."""

    endpoint: str
    headers: Mapping[str, str]
    ca_file: str | None = None


class Exporter:
    """Sends spans soon, and metrics every `interval` seconds. `add` is for the event loop, `close` is not.

    `requests` makes an export request of framed spans, `metrics` one of all metrics, empty when there are none.

    When the collector does not keep up, spans are dropped and counted; calls never wait.
    """

    def __init__(
        self, collector: Collector, requests: Callable[[list[bytes]], bytes], metrics: Callable[[], bytes], interval: float
    ) -> None:
        self._collector = collector
        self._request = requests
        self._metrics = metrics
        self._interval = interval
        self._queue: deque[bytes] = deque()
        # Each is written by one thread only; the difference is what is queued, in bytes.
        self._bytes_in = self._bytes_out = 0
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._channel: grpc.Channel | None = None
        self._thread = threading.Thread(target=self._run, name="lexora-telemetry", daemon=True)
        self._deadline = float("inf")  # of the last exports, when closing
        self._warned_at = float("-inf")
        self._failing = False
        self.exported = 0
        self._refused = 0  # by the event loop, for want of room
        self._lost = 0  # by the thread

    @property
    def dropped(self) -> int:
        """Spans that nobody will see."""
        return self._refused + self._lost

    def start(self) -> None:
        """Begin to send. Raises OSError when the file of authorities cannot be read."""
        self._channel = _channel(self._collector)
        self._thread.start()

    def add(self, make: Callable[[], bytes]) -> None:
        """Leave a framed span to be sent; it is not even made when there is no room for it."""
        queued = self._bytes_in - self._bytes_out
        if queued >= MAX_QUEUED_BYTES:
            self._refused += 1
            return
        span = make()
        self._bytes_in += len(span)
        self._queue.append(span)
        if queued > MAX_REQUEST_BYTES and not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Send what is left, for at most CLOSE_SECONDS; blocks."""
        if not self._thread.is_alive():
            return
        self._deadline = time.monotonic() + CLOSE_SECONDS
        self._closing.set()
        self._wake.set()
        self._thread.join(CLOSE_SECONDS + 1.0)
        if self.dropped:
            _log.warning("telemetry_dropped", spans=self.dropped)

    def _run(self) -> None:
        assert self._channel is not None
        traces: _Call = self._channel.unary_unary(TRACES)
        metrics: _Call = self._channel.unary_unary(METRICS)
        metrics_at = time.monotonic() + self._interval
        while not self._closing.is_set():
            self._wake.wait(min(GATHER_SECONDS, self._interval))
            self._wake.clear()
            for batch in self._batches():
                self._send_spans(traces, batch)
            if time.monotonic() >= metrics_at:
                metrics_at = time.monotonic() + self._interval
                self._send_metrics(metrics)
        for batch in self._batches():
            self._send_spans(traces, batch)
        self._send_metrics(metrics)
        self._channel.close()

    def _batches(self) -> Iterator[list[bytes]]:
        while self._queue:
            batch, size = [], 0
            while self._queue and size < MAX_REQUEST_BYTES:
                batch.append(self._queue.popleft())
                size += len(batch[-1])
            yield batch
            self._bytes_out += size  # only now: what is being sent is still held

    def _send_spans(self, call: _Call, batch: list[bytes]) -> None:
        answer = self._until_taken(call, self._request(batch))
        rejected = len(batch)
        if answer is not None:
            rejected = ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans
        self._lost += rejected
        self.exported += len(batch) - rejected

    def _send_metrics(self, call: _Call) -> None:
        """Once: the next ones say more than these."""
        request = self._metrics()
        if request:
            self._try(call, request)

    def _until_taken(self, call: _Call, request: bytes) -> bytes | None:
        """The answer; None when it was refused for good, or there is no time left."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            answer = self._try(call, request)
            if isinstance(answer, bytes):
                return answer
            if answer not in _PASSING or self._closing.wait(pause):
                return None
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _try(self, call: _Call, request: bytes) -> bytes | grpc.StatusCode:
        left = self._deadline - time.monotonic()
        if left <= 0:
            return grpc.StatusCode.DEADLINE_EXCEEDED
        try:
            answer = call(request, timeout=min(CALL_SECONDS, left), metadata=tuple(self._collector.headers.items()))
        except grpc.RpcError as error:
            self._tell(error)
            return error.code()
        if self._failing:
            self._failing = False
            _log.info("telemetry_back", endpoint=self._collector.endpoint, dropped=self.dropped)
        return answer

    def _tell(self, error: grpc.RpcError) -> None:
        self._failing = True
        now = time.monotonic()
        if now - self._warned_at >= WARN_SECONDS:
            self._warned_at = now
            reason = f"{error.code().name}: {error.details()}"[:300]
            _log.warning("telemetry_failing", endpoint=self._collector.endpoint, reason=reason, dropped=self.dropped)


def target_of(endpoint: str) -> str:
    """Host and port, as gRPC names them."""
    url = URL(endpoint)
    return url.raw_authority if url.explicit_port else f"{url.raw_authority}:{url.port}"


def _channel(collector: Collector) -> grpc.Channel:
    target, options = target_of(collector.endpoint), (("grpc.max_reconnect_backoff_ms", 10_000),)
    if collector.endpoint.startswith("http:"):
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(_authorities(collector.ca_file)), options)


def _authorities(ca_file: str | None) -> bytes | None:
    if ca_file is None:
        return None
    with open(ca_file, "rb") as file:
        return file.read()
