"""Spans of calls: one for the call itself, one for each wait for a slot, one for each attempt."""

import random
import time
from asyncio import CancelledError
from collections.abc import Callable
from typing import TYPE_CHECKING

from yarl import URL

from lexora_router.errors import UpstreamFailure, UpstreamRefused
from lexora_router.handler import Call
from lexora_router.layers.balance import outcome_of
from lexora_router.policy.trace_context import SAMPLED, TraceContext, context_of, in_ratio
from lexora_router.telemetry.account import rejection
from lexora_router.telemetry.export import Names
from lexora_router.telemetry.otel.conventions import answered, asked, error_type, operation
from lexora_router.telemetry.otel.encode import CLIENT, INTERNAL, SERVER, SpanRecord, Value

if TYPE_CHECKING:
    from lexora_router.telemetry.otel.encode import Kind

# A wait between two attempts is worth a span when it took this long; the first one always has its own.
WAIT_SECONDS = 0.001

Sink = Callable[[Callable[[], bytes]], None]
_Time = float  # an instant of the monotonic clock, in seconds


class Tracer:
    """A recorder that gives calls their trace: the client's, or one of their own. `clock` is monotonic, in seconds.

    A client that decided for or against a trace is followed; of the others the share `ratio` is written down. `prompts`
    reads what a call's span may say of its input, and is None when that is nothing.
    """

    def __init__(
        self,
        sink: Sink,
        names: Names,
        *,
        ratio: float,
        prompts: Callable[[Call], dict[str, Value]] | None,
        clock: Callable[[], float],
    ) -> None:
        self.sink = sink
        self.names = names
        self.prompts = prompts
        self.clock = clock
        self._ratio = ratio
        self._random = random.Random()  # noqa: S311 - ids must be different, not secret

    def begin(self, call: Call) -> None:
        """Give the call its place in its trace, and its tracing if it is written down."""
        parent = context_of(call.trace)
        if parent is None:
            trace_id = f"{self._random.getrandbits(128) or 1:032x}"
            flags = SAMPLED if in_ratio(trace_id, self._ratio) else 0
            own = TraceContext(trace_id, self.new_span_id(), flags)
            call.trace = (("traceparent", own.traceparent),)  # the state of no trace is not passed on
        elif parent.sampled:
            own = self.child(parent)
            call.trace = under(call, own)
        else:
            return  # passed on as it came
        if own.sampled:
            call.tracing = CallTracing(self, own, parent)

    def end(self, call: Call, status: int, error: BaseException | None) -> None:
        """Write the call's span."""
        tracing, call.tracing = call.tracing, None
        if isinstance(tracing, CallTracing):
            tracing.ended(call, status, error)

    def new_span_id(self) -> str:
        """An id that no other span has."""
        return f"{self._random.getrandbits(64) or 1:016x}"

    def child(self, parent: TraceContext) -> TraceContext:
        """The context of a new span below another one."""
        return TraceContext(parent.trace_id, self.new_span_id(), parent.flags)


def under(call: Call, parent: TraceContext) -> tuple[tuple[str, str], ...]:
    """The call's headers with another parent."""
    return (("traceparent", parent.traceparent), *(pair for pair in call.trace if pair[0] == "tracestate"))


class CallTracing:
    """The spans of one call; see handler.Tracing."""

    __slots__ = ("_attempts", "_from", "_offset", "_own", "_parent", "_tracer", "_try", "_waits_since")

    def __init__(self, tracer: Tracer, own: TraceContext, parent: TraceContext | None) -> None:
        self._tracer = tracer
        self._own = own
        self._parent = parent
        self._offset = time.time_ns() - round(tracer.clock() * 1e9)
        self._waits_since: _Time = 0.0  # for the first slot of a target
        self._from: _Time = 0.0  # the attempt under way, or the wait for its slot
        self._attempts = 0  # before it
        self._try = own

    def waits(self) -> None:
        """See handler.Tracing."""
        self._waits_since = self._tracer.clock()

    def gave_up(self, call: Call, error: BaseException) -> None:
        """See handler.Tracing."""
        if self._waits_since:
            self._waited(call, self._waits_since, self._tracer.clock(), error)
            self._waits_since = 0.0

    def tries(self, call: Call) -> None:
        """See handler.Tracing."""
        self._attempts = call.receipt.attempts
        self._from = self._waits_since or self._tracer.clock()
        self._try = self._tracer.child(self._own)
        call.trace = under(call, self._try)

    def tried(self, call: Call, error: BaseException | None) -> None:
        """See handler.Tracing."""
        receipt, now = call.receipt, self._tracer.clock()
        first, self._waits_since = bool(self._waits_since), 0.0
        if receipt.attempts == self._attempts:
            self._waited(call, self._from, now, error)
            return
        if first or receipt.attempted_at - self._from >= WAIT_SECONDS:
            self._waited(call, self._from, receipt.attempted_at, None)
        heard_at = receipt.first_event_at
        self._tracer.sink(lambda: self._attempt(call, now, heard_at, error))

    def ended(self, call: Call, status: int, error: BaseException | None) -> None:
        """The call is over: HTTP status, and the error it ended with, if any."""
        self._tracer.sink(lambda: self._call(call, status, error))

    # `sink` calls these at once, or not at all.

    def _call(self, call: Call, status: int, error: BaseException | None) -> bytes:
        names, parent = self._tracer.names, self._parent
        what = operation(call.path) or "call"
        name = f"{what} {names.label(call.model)}" if call.model else what
        ids = (self._own.trace_id, self._own.span_id, parent.span_id if parent else "")
        span = SpanRecord(
            name, SERVER, ids, self._ns(call.started), self._ns(call.receipt.finished_at), remote=parent is not None
        )
        span.put(asked(call))
        if provider := names.provider(call.receipt.backend):
            span.put({"gen_ai.provider.name": provider})
        span.put(answered(call, status, error))
        if self._tracer.prompts is not None:
            span.put(self._tracer.prompts(call))
        if status >= 500:  # the conventions for servers: what is wrong with a request is no failure of theirs
            span.fail()
        return span.framed()

    def _attempt(self, call: Call, end: _Time, heard_at: _Time, error: BaseException | None) -> bytes:
        receipt, url = call.receipt, URL(call.receipt.endpoint)
        attributes: dict[str, Value] = {
            "server.address": url.host or "",
            "server.port": url.port or 0,
            "lexora.backend": receipt.backend,
            "lexora.attempt": receipt.attempts,
            "lexora.outcome": "good",
        }
        span = self._child(f"attempt {receipt.backend}", CLIENT, self._try.span_id, receipt.attempted_at, end)
        if heard_at >= receipt.attempted_at:
            span.event("first_token", self._ns(heard_at))
        if error is not None:
            attributes["error.type"] = error_type(error)
            attributes["lexora.outcome"] = outcome_of(error).value if isinstance(error, UpstreamFailure) else "neutral"
            if isinstance(error, UpstreamRefused):
                attributes["http.response.status_code"] = error.http_status
            if not isinstance(error, CancelledError):
                span.fail()
        span.put(attributes)
        return span.framed()

    def _waited(self, call: Call, start: _Time, end: _Time, error: BaseException | None) -> None:
        self._tracer.sink(lambda: self._wait(call, start, end, error))

    def _wait(self, call: Call, start: _Time, end: _Time, error: BaseException | None) -> bytes:
        backend = call.target.backend if call.target is not None else ""
        span = self._child(f"queue {backend}", INTERNAL, self._tracer.new_span_id(), start, end)
        attributes: dict[str, Value] = {"lexora.backend": backend}
        if call.priority is not None:
            attributes["lexora.priority"] = call.priority
        if error is None:
            span.event("admitted", self._ns(end))
        else:
            reason = rejection(error)
            span.event("refused" if reason else "left", self._ns(end))
            attributes["error.type"] = error_type(error)
            if reason:
                attributes["lexora.rejected"] = reason
                span.fail()
        span.put(attributes)
        return span.framed()

    def _child(self, name: str, kind: "Kind", span_id: str, start: _Time, end: _Time) -> SpanRecord:
        return SpanRecord(name, kind, (self._own.trace_id, span_id, self._own.span_id), self._ns(start), self._ns(end))

    def _ns(self, instant: _Time) -> int:
        return self._offset + round(instant * 1e9)
