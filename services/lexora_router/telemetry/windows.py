"""What ended in the last minutes, in slices of ten seconds: fixed memory, merged on demand."""

from collections import deque
from collections.abc import Iterable, Iterator

from lexora_router.call import Call
from lexora_router.telemetry.quantile_sketch import QuantileSketch

SLICE_SECONDS = 10
SLICES = 30
LAST_MINUTE = 60 // SLICE_SECONDS


class Latencies:
    """The four distributions of calls: time to first token, between two pieces of a stream, until an engine, in all."""

    __slots__ = ("itl", "queue", "total", "ttft")

    def __init__(self) -> None:
        self.ttft = QuantileSketch()
        self.itl = QuantileSketch()
        self.queue = QuantileSketch()
        self.total = QuantileSketch()

    def merge(self, others: "list[Latencies]") -> None:
        """Count all that others have counted."""
        self.ttft.merge(other.ttft for other in others)
        self.itl.merge(other.itl for other in others)
        self.queue.merge(other.queue for other in others)
        self.total.merge(other.total for other in others)


class Slice:
    """What ended in the ten seconds that begin at `index` times ten seconds of the monotonic clock."""

    __slots__ = ("failed", "index", "latencies", "tokens_input", "tokens_output", "total")

    def __init__(self, index: int) -> None:
        self.index = index
        self.total = self.failed = self.tokens_input = self.tokens_output = 0
        self.latencies = Latencies()

    @property
    def begin(self) -> float:
        """When it began, by the monotonic clock."""
        return float(self.index * SLICE_SECONDS)


class Windows:
    """The slices of the last five minutes, and everything before them. A `now` that goes back counts as no progress."""

    def __init__(self, now: float) -> None:
        self._first = int(now // SLICE_SECONDS)
        self._closed: deque[Slice] = deque(maxlen=SLICES - 1)  # those in which something happened
        self._before = Latencies()  # all that is in closed slices, and was in forgotten ones
        self._open = Slice(self._first)
        self._until = self._open.begin + SLICE_SECONDS

    def at(self, now: float) -> Slice:
        """The slice that is filled now."""
        return self._open if now < self._until else self._turn(int(now // SLICE_SECONDS))

    def gap(self, seconds: float, now: float) -> None:
        """Count the time between two pieces of a stream; called for every piece."""
        (self._open if now < self._until else self._turn(int(now // SLICE_SECONDS))).latencies.itl.add(seconds)

    def end(self, call: Call, *, failed: bool) -> None:
        """Count a finished call."""
        receipt, started = call.receipt, call.started
        now = receipt.finished_at
        within = self._open if now < self._until else self._turn(int(now // SLICE_SECONDS))
        within.total += 1
        within.failed += failed
        latencies = within.latencies
        latencies.total.add(now - started)
        if receipt.dispatched_at:
            latencies.queue.add(receipt.dispatched_at - started)
        if call.stream and receipt.first_event_at:
            latencies.ttft.add(receipt.first_event_at - started)
        usage = receipt.usage
        if usage is not None:
            within.tokens_input += usage.input_tokens
            within.tokens_output += usage.output_tokens

    def last(self, slices: int, now: float) -> Latencies:
        """Distributions of the last so many slices, the one that is still going on included."""
        after = self.at(now).index - slices
        return _merged(each.latencies for each in (*self._closed, self._open) if each.index > after)

    def since_start(self) -> Latencies:
        """Distributions of everything."""
        return _merged((self._before, self._open.latencies))

    def history(self, now: float) -> Iterator[Slice]:
        """The slices of the last five minutes, the oldest first; empty ones for where nothing happened."""
        last = self.at(now).index
        known = {each.index: each for each in self._closed}
        for index in range(max(self._first, last - SLICES + 1), last):
            yield known.get(index) or Slice(index)
        yield self._open

    def _turn(self, index: int) -> Slice:
        closed = self._open
        self._before.merge([closed.latencies])
        self._closed.append(closed)
        self._open = Slice(index)
        self._until = self._open.begin + SLICE_SECONDS
        return self._open


def _merged(parts: Iterable[Latencies]) -> Latencies:
    merged = Latencies()
    merged.merge(list(parts))
    return merged
