"""Spans of calls: one for the call itself, one for each wait for a slot, one for each attempt."""

import time
from asyncio import CancelledError
from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from yarl import URL

from lexora_contract.answer import Headers
from lexora_router.call import Call
from lexora_router.errors import RouterError, UpstreamRefused
from lexora_router.policy.failures import verdict_of
from lexora_router.telemetry.account import rejection
from lexora_router.telemetry.names import BoundedNames
from lexora_router.telemetry.otel.conventions import Value, answered, asked, error_type, operation

# A wait between two attempts is worth a span when it took this long; the first one always has its own.
WAIT_SECONDS = 0.001

_Time = float  # an instant of the monotonic clock, in seconds
_w3c = TraceContextTextMapPropagator()


class SpanIds(RandomIdGenerator):
    """Random ids. A `promised` one is the next span's: the engine got it before it was known when the attempt begins."""

    promised = 0

    def generate_span_id(self) -> int:
        """An id that no other span has."""
        promised, self.promised = self.promised, 0
        return promised or super().generate_span_id()


class _Pairs(Getter[Headers]):
    def get(self, carrier: Headers, key: str) -> list[str] | None:
        return [value for name, value in carrier if name == key] or None

    def keys(self, carrier: Headers) -> list[str]:
        return [name for name, _ in carrier]


_pairs = _Pairs()


class Tracer:
    """A recorder that gives calls their trace: the client's, or one of their own. `clock` is monotonic, in seconds.

    `prompts` reads what a call's span may say of its input, and is None when that is nothing.
    """

    def __init__(
        self,
        spans: trace.Tracer,
        ids: SpanIds,
        names: BoundedNames,
        *,
        prompts: Callable[[Call], dict[str, Value]] | None,
        clock: Callable[[], float],
    ) -> None:
        self.spans = spans
        self.ids = ids
        self.names = names
        self.prompts = prompts
        self.clock = clock

    def begin(self, call: Call) -> None:
        """Give the call its place in its trace, and its tracing if it is written down."""
        context = _w3c.extract(call.trace, getter=_pairs)
        parent = trace.get_current_span(context).get_span_context()
        if parent.is_valid and not parent.trace_flags.sampled:
            return  # passed on as it came
        offset = time.time_ns() - round(self.clock() * 1e9)
        start = offset + round(call.started * 1e9)
        span = self.spans.start_span("call", context, SpanKind.SERVER, start_time=start)
        call.trace = headers_of(span)
        if span.is_recording():
            call.tracing = CallTracing(self, span, offset)

    def end(self, call: Call, status: int, error: BaseException | None) -> None:
        """Write the call's span."""
        tracing, call.tracing = call.tracing, None
        if isinstance(tracing, CallTracing):
            tracing.ended(call, status, error)


def headers_of(span: Span) -> Headers:
    """What makes a span the parent of whatever gets these headers."""
    carrier: dict[str, str] = {}
    _w3c.inject(carrier, trace.set_span_in_context(span, Context()))
    return tuple(carrier.items())


class CallTracing:
    """The spans of one call; see handler.Tracing. `offset` leads from the clock's time to that since 1970, in nanoseconds."""

    __slots__ = ("_attempts", "_context", "_from", "_offset", "_own", "_tracer", "_try", "_waits_since")

    def __init__(self, tracer: Tracer, own: Span, offset: int) -> None:
        self._tracer = tracer
        self._own = own
        self._context = trace.set_span_in_context(own, Context())
        self._offset = offset
        self._waits_since: _Time = 0.0  # for the first slot of a target
        self._from: _Time = 0.0  # the attempt under way, or the wait for its slot
        self._attempts = 0  # before it
        self._try = 0  # its span's id

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
        self._try, own = self._tracer.ids.generate_span_id(), self._own.get_span_context()
        promised = SpanContext(own.trace_id, self._try, False, own.trace_flags, own.trace_state)
        call.trace = headers_of(NonRecordingSpan(promised))

    def tried(self, call: Call, error: BaseException | None) -> None:
        """See handler.Tracing."""
        receipt, now = call.receipt, self._tracer.clock()
        first, self._waits_since = bool(self._waits_since), 0.0
        if receipt.attempts == self._attempts:
            self._waited(call, self._from, now, error)
            return
        if first or receipt.attempted_at - self._from >= WAIT_SECONDS:
            self._waited(call, self._from, receipt.attempted_at, None)
        self._attempt(call, now, error)

    def ended(self, call: Call, status: int, error: BaseException | None) -> None:
        """The call is over: HTTP status, and the error it ended with, if any."""
        names, span, what = self._tracer.names, self._own, operation(call.path) or "call"
        span.update_name(f"{what} {names.label(call.model)}" if call.model else what)
        span.set_attributes(asked(call))
        if provider := names.provider(call.receipt.backend):
            span.set_attribute("gen_ai.provider.name", provider)
        span.set_attributes(answered(call, status, error))
        if self._tracer.prompts is not None:
            span.set_attributes(self._tracer.prompts(call))
        if status >= 500:  # the conventions for servers: what is wrong with a request is no failure of theirs
            span.set_status(StatusCode.ERROR)
        span.end(self._ns(call.receipt.finished_at))

    def _attempt(self, call: Call, end: _Time, error: BaseException | None) -> None:
        receipt, url = call.receipt, URL(call.receipt.endpoint)
        attributes: dict[str, Value] = {
            "server.address": url.host or "",
            "server.port": url.port or 0,
            "lexora.backend": receipt.backend,
            "lexora.attempt": receipt.attempts,
            "lexora.outcome": "good",
        }
        self._tracer.ids.promised = self._try
        span = self._child(f"attempt {receipt.backend}", SpanKind.CLIENT, receipt.attempted_at)
        if receipt.first_event_at >= receipt.attempted_at:
            span.add_event("first_token", timestamp=self._ns(receipt.first_event_at))
        if error is not None:
            attributes["error.type"] = error_type(error)
            attributes["lexora.outcome"] = verdict_of(error).outcome.value if isinstance(error, RouterError) else "neutral"
            if isinstance(error, UpstreamRefused):
                attributes["http.response.status_code"] = error.http_status
            if not isinstance(error, CancelledError):
                span.set_status(StatusCode.ERROR)
        span.set_attributes(attributes)
        span.end(self._ns(end))

    def _waited(self, call: Call, start: _Time, end: _Time, error: BaseException | None) -> None:
        backend = call.target.backend if call.target is not None else ""
        span = self._child(f"queue {backend}", SpanKind.INTERNAL, start)
        attributes: dict[str, Value] = {"lexora.backend": backend}
        if call.priority is not None:
            attributes["lexora.priority"] = call.priority
        if error is None:
            span.add_event("admitted", timestamp=self._ns(end))
        else:
            reason = rejection(error)
            span.add_event("refused" if reason else "left", timestamp=self._ns(end))
            attributes["error.type"] = error_type(error)
            if reason:
                attributes["lexora.rejected"] = reason
                span.set_status(StatusCode.ERROR)
        span.set_attributes(attributes)
        span.end(self._ns(end))

    def _child(self, name: str, kind: SpanKind, start: _Time) -> Span:
        return self._tracer.spans.start_span(name, self._context, kind, start_time=self._ns(start))

    def _ns(self, instant: _Time) -> int:
        return self._offset + round(instant * 1e9)
