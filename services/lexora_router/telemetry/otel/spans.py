"""The way of spans to the collector: the SDK's queue and exporter, with a bound and a count of what became of each span."""

from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult


class SpanQueue(SpanProcessor):
    """Holds at most `most` spans that were not sent yet, those in flight included; sends at most `batch` every `seconds`,
    and sooner when there are so many.

    The SDK's own queue forgets its oldest spans without a count when it is full; behind this one it never is.
    """

    def __init__(self, exporter: SpanExporter, well: Callable[[], None], *, most: int, batch: int, seconds: float) -> None:
        """`well` is called, in a thread, after each batch that was taken."""
        self._most = most
        self._sent = _Counted(exporter, well)
        self._batches = BatchSpanProcessor(self._sent, most, seconds * 1000, batch)
        # Each of these and of _Counted's is written by one thread only.
        self._accepted = self._refused = 0

    @property
    def exported(self) -> int:
        """Spans that the collector took."""
        return self._sent.taken

    @property
    def dropped(self) -> int:
        """Spans that are not exported."""
        return self._refused + self._sent.lost

    def on_end(self, span: ReadableSpan) -> None:
        """Leave a span to be sent. For the event loop."""
        if self._accepted - self._sent.taken - self._sent.lost >= self._most:
            self._refused += 1
        else:
            self._accepted += 1
            self._batches.on_end(span)

    def shutdown(self) -> None:
        """Send what is left; blocks."""
        self._batches.shutdown()  # type: ignore[no-untyped-call]  # the SDK has no type for it


class _Counted(SpanExporter):
    def __init__(self, exporter: SpanExporter, well: Callable[[], None]) -> None:
        self._exporter = exporter
        self._well = well
        self.taken = self.lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:  # an exporter whose channel is closed meanwhile may raise
            if result is SpanExportResult.SUCCESS:
                self.taken += len(spans)
                self._well()
            else:
                self.lost += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
