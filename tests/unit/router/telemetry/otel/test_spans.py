"""Whatever becomes of spans, each is counted once."""

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from tests.support.otlp import until

from lexora_router.telemetry.otel.spans import SpanQueue


class Scripted(SpanExporter):
    """Does as `result` says, when `go` is set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.result: SpanExportResult | Exception = SpanExportResult.SUCCESS
        self.batches: list[list[str]] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.batches.append([span.name for span in spans])
        self.go.wait(10)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def exporter() -> Scripted:
    return Scripted()


@pytest.fixture
def well() -> list[None]:
    """One for each time the queue said that it is."""
    return []


@pytest.fixture
def start(exporter: Scripted, well: list[None]) -> Iterator[Callable[..., SpanQueue]]:
    """Starts queues, and ends them."""
    started: list[SpanQueue] = []

    def start(most: int = 5000, batch: int = 100) -> SpanQueue:
        started.append(SpanQueue(exporter, lambda: well.append(None), most=most, batch=batch, seconds=0.01))
        return started[-1]

    yield start
    exporter.go.set()
    for queue in started:
        queue.shutdown()


def end_spans(queue: SpanQueue, count: int) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(queue)
    for number in range(count):
        provider.get_tracer("test").start_span(str(number)).end()


def test_spans_leave_in_their_order(exporter: Scripted, start: Callable[..., SpanQueue], well: list[None]) -> None:
    queue = start()
    end_spans(queue, 1000)
    until(lambda: queue.exported, lambda count: count == 1000)
    assert [name for batch in exporter.batches for name in batch] == [str(number) for number in range(1000)]
    assert max(map(len, exporter.batches)) <= 100
    assert (queue.dropped, len(well)) == (0, len(exporter.batches))


def test_the_queue_is_bounded_with_what_is_in_flight(exporter: Scripted, start: Callable[..., SpanQueue]) -> None:
    exporter.go.clear()
    queue = start(most=10, batch=4)
    end_spans(queue, 4)
    until(lambda: exporter.batches)
    end_spans(queue, 96)
    assert (queue.exported, queue.dropped) == (0, 90)
    exporter.go.set()
    until(lambda: queue.exported, lambda count: count == 10)
    end_spans(queue, 1)
    until(lambda: queue.exported, lambda count: count == 11)
    assert (sum(map(len, exporter.batches)), queue.dropped) == (11, 90)


@pytest.mark.parametrize("result", [SpanExportResult.FAILURE, TypeError("no channel")], ids=["failed", "raised"])
def test_what_is_not_taken_is_dropped(
    result: SpanExportResult | Exception, exporter: Scripted, start: Callable[..., SpanQueue], well: list[None]
) -> None:
    exporter.result = result
    queue = start()
    end_spans(queue, 5)
    until(lambda: queue.dropped, lambda count: count == 5)
    exporter.result = SpanExportResult.SUCCESS
    end_spans(queue, 5)
    until(lambda: queue.exported, lambda count: count == 5)
    assert (queue.dropped, len(well)) == (5, 1)


def test_the_end_sends_what_is_left(exporter: Scripted, start: Callable[..., SpanQueue]) -> None:
    queue = start()
    end_spans(queue, 10)
    queue.shutdown()
    assert (queue.exported, queue.dropped) == (10, 0)
