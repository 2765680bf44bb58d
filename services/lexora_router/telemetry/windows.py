"""What ended in the last minutes, in slices of ten seconds: fixed memory, merged on demand."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct, field

from lexora_router.call import Call
from lexora_router.telemetry.quantile_sketch import QuantileSketch

SLICE_SECONDS = 10
SLICES = 30
LAST_MINUTE = 60 // SLICE_SECONDS


class Latencies(Struct, array_like=True, gc=False):
    """The four distributions of calls: time to first token, between two pieces of a stream, until an engine, in all."""

    ttft: QuantileSketch = field(default_factory=QuantileSketch)
    itl: QuantileSketch = field(default_factory=QuantileSketch)
    queue: QuantileSketch = field(default_factory=QuantileSketch)
    total: QuantileSketch = field(default_factory=QuantileSketch)

    def merge(self, others: "list[Latencies]") -> None:
        """Count all that others have counted."""
        self.ttft.merge(other.ttft for other in others)
        self.itl.merge(other.itl for other in others)
        self.queue.merge(other.queue for other in others)
        self.total.merge(other.total for other in others)


class Slice(Struct, array_like=True, gc=False):
    """What ended in the ten seconds that begin at `index` times ten seconds of the monotonic clock."""

    index: int
    total: int = 0
    failed: int = 0
    tokens_input: int = 0
    tokens_output: int = 0
    latencies: Latencies = field(default_factory=Latencies)

    def merge(self, other: "Slice") -> None:
        """Count all that another one of the same ten seconds has counted."""
        self.total += other.total
        self.failed += other.failed
        self.tokens_input += other.tokens_input
        self.tokens_output += other.tokens_output
        self.latencies.merge([other.latencies])

    @property
    def begin(self) -> float:
        """When it began, by the monotonic clock."""
        return float(self.index * SLICE_SECONDS)


class WindowCounts(Struct, array_like=True):
    """What windows have counted: since when, all but the last slice in one, and the slices, the one that is filled last."""

    first: int
    before: Latencies
    slices: list[Slice]


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

    @property
    def counts(self) -> "WindowCounts":
        """What was counted, as data."""
        return WindowCounts(self._first, self._before, [*self._closed, self._open])

    @classmethod
    def of(cls, parts: "Sequence[WindowCounts]", now: float) -> "Windows":
        """Windows that have counted what all of these have; the processes of one machine have the same monotonic clock."""
        made, slices = cls(now), dict[int, Slice]()
        for part in parts:
            made._first = min(made._first, part.first)
            made._before.merge([part.before])
            for each in part.slices:
                slices.setdefault(each.index, Slice(each.index)).merge(each)
        last = max((made._open.index, *slices))
        # Slices that others fill may be over here, by this one's time.
        made._before.merge([each.latencies for part in parts if (each := part.slices[-1]).index != last])
        made._open = slices.pop(last, made._open)
        made._until = made._open.begin + SLICE_SECONDS
        made._closed.extend(slices[index] for index in sorted(slices))
        return made

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
