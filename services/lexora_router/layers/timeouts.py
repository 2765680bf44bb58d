"""Silence costs one attempt: the first token, the gap between tokens, and the whole attempt are bounded.

Here a clock is read for every piece of a stream, so here its gaps are told as well.
"""

import asyncio
from collections.abc import Callable
from math import inf
from types import TracebackType

from lexora_router.call import Call, Emit, Event, Frames, Handler, Timeouts
from lexora_router.errors import UpstreamTimeout

# How often an overdue unary call asks whether its endpoint has gone silent: as often as that is judged.
LOOK_SECONDS = 1.0
# Somebody who is told the time between two pieces of a stream, and when that was, in seconds.
Gaps = Callable[[float, float], None]


def untold(_seconds: float, _now: float) -> None:
    """Nobody wants to know the gaps."""


class EngineTimeouts:
    """Ends an attempt with UpstreamTimeout when the engine is silent for too long.

    A client that reads slowly is not the engine's silence: while an event is being handed over only the total counts.

    `gaps` is told how long after another each piece of a stream was handed over, within one attempt: the time that it takes
    to go on at another endpoint is none.
    """

    def __init__(self, inner: Handler, *, clock: Callable[[], float], gaps: Gaps = untold) -> None:
        self._inner = inner
        self._clock = clock
        self._gaps = gaps

    async def __call__(self, call: Call, emit: Emit) -> None:
        """Serve the call under its target's timeouts."""
        assert call.target is not None
        async with _Watch(call, call.target.timeouts, emit, self._clock, self._gaps) as watched:
            await self._inner(call, watched)


class _Watch:
    """One timer per attempt, moved only when it fires, so that an event costs two clock readings and no timer."""

    __slots__ = (
        "_call",
        "_clock",
        "_due",
        "_emit",
        "_emitting",
        "_exceeded",
        "_gaps",
        "_last",
        "_limits",
        "_phase",
        "_streams",
        "_timeout",
        "_timer",
        "_total_at",
    )

    def __init__(self, call: Call, limits: Timeouts, emit: Emit, clock: Callable[[], float], gaps: Gaps) -> None:
        self._call = call
        self._limits = limits
        self._emit = emit
        self._clock = clock
        self._gaps = gaps
        self._streams = False  # a piece has been handed over
        self._emitting = False
        self._phase = "first token"
        self._exceeded = ""
        self._timeout = asyncio.timeout(None)
        self._last = clock()
        self._total_at = self._last + limits.total
        call.receipt.comments = call.receipt.body_bytes = 0

    async def __aenter__(self) -> Emit:
        await self._timeout.__aenter__()
        self._fire_at(min(self._silent_until(self._last), self._total_at))
        return self._pass

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise self._error() from None

    async def _pass(self, event: Event) -> None:
        if self._phase == "first token":
            self._phase = "idle"
            silent_until = self._clock() + self._limits.idle
            if silent_until < self._due:  # the first token may have been allowed more time than the next ones are
                self._timer.cancel()
                self._fire_at(silent_until)
        before = self._last
        self._emitting = True
        try:
            await self._emit(event)
        finally:
            self._emitting = False
            self._last = now = self._clock()
        if self._streams:
            self._gaps(now - before, now)
        elif type(event) is Frames:
            self._streams = True

    def _fire_at(self, due: float) -> None:
        self._due = due
        self._timer = asyncio.get_running_loop().call_at(due, self._check)

    def _check(self) -> None:
        now = self._clock()
        due = min(self._silent_until(now), self._total_at)
        lease = self._call.lease
        if self._phase == "first token" and now < due and lease is not None and lease.gone_silent():
            self._exceeded = "silent"
            self._timeout.reschedule(now)
            return
        if now < due:
            self._fire_at(due)
            return
        self._exceeded = "total" if now >= self._total_at else self._phase
        self._timeout.reschedule(now)

    def _silent_until(self, now: float) -> float:
        """The instant at which silence will have lasted too long, or may have: then this is asked again."""
        receipt, limits = self._call.receipt, self._limits
        if receipt.body_bytes:  # of a whole answer that is on its way: whatever comes is no silence
            self._phase = "idle"
            self._last = max(self._last, receipt.heard_at)
        if self._phase == "idle":
            return now + limits.idle if self._emitting else self._last + limits.idle
        until = self._last + limits.first_token
        return until if self._call.stream else min(until, now + limits.idle, self._overdue_at(now))

    def _overdue_at(self, now: float) -> float:
        """When to ask next whether a unary answer is overdue at an endpoint that has gone silent."""
        lease = self._call.lease
        return inf if lease is None else max(self._last + lease.bound, now + LOOK_SECONDS)

    def _error(self) -> UpstreamTimeout:
        receipt, limits = self._call.receipt, self._limits
        where = f"backend `{receipt.backend}`"
        if self._exceeded == "total":
            return UpstreamTimeout(f"{where} was not done within {limits.total:g} s (total_timeout).", "total", limits.total)
        if self._exceeded == "silent":
            seconds = self._clock() - receipt.attempted_at
            message = f"{where} has gone silent at {receipt.endpoint}: nothing came from there for {seconds:.1f} s."
            return UpstreamTimeout(message, "silent", seconds)
        if self._exceeded == "first token":
            sent = _counted(receipt.comments, "comment")
            what = f"sent {sent}, but no token within" if receipt.comments else "sent nothing for"
            message = f"{where} {what} {limits.first_token:g} s (first_token_timeout)."
            return UpstreamTimeout(message, "first token", limits.first_token)
        seen = f"after {_counted(receipt.body_bytes, 'byte')} of its answer" if receipt.body_bytes else "in mid-answer"
        return UpstreamTimeout(f"{where} fell silent for {limits.idle:g} s {seen} (idle_timeout).", "idle", limits.idle)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
