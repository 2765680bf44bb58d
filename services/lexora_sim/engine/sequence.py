"""One sequence: a prompt that becomes tokens, one timer step at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lexora_sim.text.vocabulary import EOS

if TYPE_CHECKING:
    from lexora_sim.engine.scheduler import Scheduler
    from lexora_sim.text.language import Source

_BURST = 16  # tokens per turn of the loop when nothing separates them
_MAX_CATCH_UP = 0.05  # seconds of lateness that are made good
_TICK = 0.0015  # seconds; the clock's step and a little

# (new token ids, finish reason or None, stop token id or None)
Sink = Callable[[list[int], str | None, int | None], None]


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """What the scheduler runs. `max_tokens` 0 means prefill only, as for pooling.

    `sink` gets every step; it may call `Scheduler.finish` to stop early. `ready` says whether the reader keeps up.
    """

    model: str
    prompt: list[int]
    source: Source
    sink: Sink
    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    stop_ids: frozenset[int] = frozenset()
    priority: int = 0
    itl: float | None = None  # seconds, instead of the server's
    n: int = 1  # choices of its request, for the metrics
    ready: Callable[[], bool] = lambda: True

    scheduler: Scheduler | None = None
    ids: list[int] = field(default_factory=list)  # generated so far
    cached: int = 0  # prompt tokens found in the prefix cache
    arrived: float = 0.0
    admitted: float = 0.0
    first_token: float = 0.0
    last_token: float = 0.0
    due: float = 0.0
    planned: float = -1.0  # the instant of the next step; negative = none
    running: bool = False
    done: bool = False
    stalled: bool = False
    frozen: bool = False

    @property
    def size(self) -> int:
        """Tokens it holds in the KV cache."""
        return len(self.prompt) + len(self.ids)

    def schedule(self, delay: float) -> None:
        """Take the next step `delay` seconds after the last one was due."""
        scheduler = self.scheduler
        if scheduler is None or self.frozen:
            return
        now = scheduler.clock.now()
        self.due = max(self.due, now - _MAX_CATCH_UP) + delay if self.due else now + delay
        self.planned = self.due
        if delay > 0:
            scheduler.clock.at(self.due, self.step)
        else:
            scheduler.clock.soon(self.step)

    def cancel(self) -> None:
        """Take no further step."""
        self.planned = -1.0

    def freeze(self) -> None:
        """Keep the place and say nothing more."""
        self.frozen = True
        self.cancel()

    def wake(self) -> None:
        """Go on after the reader caught up."""
        if self.stalled and not self.done and self.running:
            self.stalled = False
            self.schedule(0.0)

    def step(self) -> None:
        """Make the tokens that are due and plan the next step."""
        scheduler = self.scheduler
        if scheduler is None or self.planned < 0 or self.planned > scheduler.clock.now() + _TICK:
            return  # cancelled or planned anew since this call was made
        self.planned = -1.0
        if not self.ready():
            self.stalled = True
            return
        for _ in range(_BURST):
            self._produce(scheduler)
            if self.done or self.frozen or not self.running or not self.ready():
                break
            delay = scheduler.gap(self)
            if delay > 0:
                self.schedule(delay)
                return
        if not self.done and self.running:
            self.schedule(0.0)

    def _produce(self, scheduler: Scheduler) -> None:
        """Emit one step: up to `coalesce` tokens, or the end."""
        fresh: list[int] = []
        reason: str | None = None
        stop_id: int | None = None
        for _ in range(scheduler.settings.coalesce):
            if len(self.ids) >= self.max_tokens:
                reason = "length"
                break
            may_end = not self.ignore_eos and len(self.ids) >= self.min_tokens
            token = self.source.next(may_end=may_end)
            self.ids.append(token)
            fresh.append(token)
            if token == EOS:
                reason = "stop"
            elif token in self.stop_ids and may_end:
                reason, stop_id = "stop", token
            elif len(self.ids) >= self.max_tokens:
                reason = "length"
            if reason:
                break
        now = time.monotonic()
        scheduler.count_tokens(self, len(fresh), now)
        if reason:
            scheduler.finish(self, reason)
        self.sink(fresh, reason, stop_id)
