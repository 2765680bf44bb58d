"""Silence costs one attempt: the first token, the gap between tokens, and the whole attempt are bounded.

Here a clock is read for every piece of a stream, so its gaps are measured here as well.
"""

from collections.abc import Callable
from math import inf

from lexora_contract.answer import Head, Reply
from lexora_contract.port import Sink
from lexora_router.call import Call, Handler, Timeouts
from lexora_router.errors import UpstreamTimeout
from lexora_router.timers import Expiry, fire_at

# How often an overdue unary call asks whether its endpoint has gone silent: as often as that is judged.
LOOK_SECONDS = 1.0
# Gets the time between two pieces of a stream, and when that was, in seconds.
Gaps = Callable[[float, float], None]


def unrecorded(_seconds: float, _now: float) -> None:
    """The gaps are not recorded."""


class EngineTimeouts:
    """Ends an attempt with UpstreamTimeout when the engine is silent for too long.

    A client that reads slowly is not the engine's silence: while it is waited for only the total counts.

    `gaps` gets the time between each two pieces of a stream, within one attempt: the time that it takes to go on at another
    endpoint is none.
    """

    def __init__(self, inner: Handler, *, clock: Callable[[], float], gaps: Gaps = unrecorded) -> None:
        self._inner = inner
        self._clock = clock
        self._gaps = gaps

    async def __call__(self, call: Call, sink: Sink) -> None:
        """Serve the call under its target's timeouts."""
        assert call.target is not None
        watch = _Watch(call, call.target.timeouts, sink, self._clock, self._gaps)
        try:
            with watch:
                await self._inner(call, watch)
        except TimeoutError:
            if not watch.exceeded:
                raise
            raise watch.error() from None


class _Watch(Expiry):
    """The sink of one attempt, and its one timer, which is moved only when it fires: a piece costs a clock reading."""

    __slots__ = (
        "_call",
        "_clock",
        "_due",
        "_gaps",
        "_last",
        "_limits",
        "_phase",
        "_sink",
        "_streams",
        "_total_at",
        "exceeded",
    )

    def __init__(self, call: Call, limits: Timeouts, sink: Sink, clock: Callable[[], float], gaps: Gaps) -> None:
        super().__init__()
        self._call = call
        self._limits = limits
        self._sink = sink
        self._clock = clock
        self._gaps = gaps
        self._streams = False  # a piece has been handed over
        self._phase = "first token"
        self.exceeded = ""
        self._last = now = clock()
        self._total_at = now + limits.total
        call.receipt.comments = call.receipt.body_bytes = 0
        self._fire_at(now + min(limits.total, limits.first_token) if call.stream else now + self._longest_unary())

    def _longest_unary(self) -> float:
        """Seconds until a whole answer has taken too long, or may have."""
        lease, limits = self._call.lease, self._limits
        bound = inf if lease is None else max(lease.bound, LOOK_SECONDS)
        return min(limits.total, limits.first_token, limits.idle, bound)

    def head(self, head: Head) -> None:
        """The first token is here: it may have been allowed more time than the next ones are."""
        self._phase = "idle"
        self._last = self._clock()
        silent_until = self._last + self._limits.idle
        if silent_until < self._due:
            self.cancel()
            self._fire_at(silent_until)
        self._sink.head(head)

    def frames(self, data: bytes) -> None:
        """A piece of a stream."""
        now = self._clock()
        if self._streams:
            self._gaps(now - self._last, now)
        else:
            self._streams = True
        self._last = now
        self._sink.frames(data)

    def reply(self, reply: Reply) -> None:
        """A whole answer."""
        self._sink.reply(reply)

    def _fire_at(self, due: float) -> None:
        self._due = due
        fire_at(due, self)

    def fire(self) -> None:
        """Look whether something is exceeded, else when to look again."""
        now = self._clock()
        due = min(self._silent_until(now), self._total_at)
        lease = self._call.lease
        if self._phase == "first token" and now < due and lease is not None and lease.gone_silent():
            self.exceeded = "silent"
            self.expire()
            return
        if now < due:
            self._fire_at(due)
            return
        self.exceeded = "total" if now >= self._total_at else self._phase
        self.expire()

    def _silent_until(self, now: float) -> float:
        """The instant at which silence will have lasted too long, or may have: then this is asked again."""
        receipt, limits = self._call.receipt, self._limits
        if receipt.body_bytes:  # of a whole answer that is on its way: whatever comes is no silence
            self._phase = "idle"
            self._last = max(self._last, receipt.heard_at)
        if self._phase == "idle":
            flow = self._call.flow  # while the client takes nothing the engine cannot speak
            return (now if flow.paused else max(self._last, flow.resumed_at)) + limits.idle
        until = self._last + limits.first_token
        return until if self._call.stream else min(until, now + limits.idle, self._overdue_at(now))

    def _overdue_at(self, now: float) -> float:
        """When to ask next whether a unary answer is overdue at an endpoint that has gone silent."""
        lease = self._call.lease
        return inf if lease is None else max(self._last + lease.bound, now + LOOK_SECONDS)

    def error(self) -> UpstreamTimeout:
        """What has been exceeded."""
        receipt, limits = self._call.receipt, self._limits
        where = f"backend `{receipt.backend}`"
        if self.exceeded == "total":
            return UpstreamTimeout(f"{where} was not done within {limits.total:g} s (total_timeout).", "total", limits.total)
        if self.exceeded == "silent":
            seconds = self._clock() - receipt.attempted_at
            message = f"{where} has gone silent at {receipt.endpoint}: nothing came from there for {seconds:.1f} s."
            return UpstreamTimeout(message, "silent", seconds)
        if self.exceeded == "first token":
            sent = _counted(receipt.comments, "comment")
            what = f"sent {sent}, but no token within" if receipt.comments else "sent nothing for"
            message = f"{where} {what} {limits.first_token:g} s (first_token_timeout)."
            return UpstreamTimeout(message, "first token", limits.first_token)
        seen = f"after {_counted(receipt.body_bytes, 'byte')} of its answer" if receipt.body_bytes else "in mid-answer"
        return UpstreamTimeout(f"{where} fell silent for {limits.idle:g} s {seen} (idle_timeout).", "idle", limits.idle)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
