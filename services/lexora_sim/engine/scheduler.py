"""The engine's scheduler: which sequences run, which wait, and how fast."""

from __future__ import annotations

import asyncio
import time
from bisect import insort
from functools import partial

from lexora_sim.engine.clock import Clock
from lexora_sim.engine.metrics import ModelMetrics
from lexora_sim.engine.prefix_cache import PrefixCache
from lexora_sim.engine.sequence import Sequence
from lexora_sim.settings import SimSettings

_BURST = 16  # tokens per turn of the loop when nothing separates them
_MAX_CATCH_UP = 0.05  # seconds of lateness that are made good
_TICK = 0.0015  # seconds; the clock's step and a little


class Overloaded(Exception):
    """The waiting queue is at `max_queued`."""


class Scheduler:
    """Admit up to `max_num_seqs` sequences as the KV cache allows; the rest wait in order.

    The order is arrival, or (priority, arrival) when `priority_scheduling` is on. Needs a running event loop.
    """

    def __init__(self, settings: SimSettings) -> None:
        self.settings = settings
        self.clock = Clock(asyncio.get_running_loop())
        self.metrics = {name: ModelMetrics() for name in (*settings.models, *settings.embedding_models)}
        self.prefix_caching = settings.prefix_cache
        self.kv_capacity = settings.kv_capacity_tokens
        self.kv_used = 0
        self.max_running = 0
        self.tokens_out = 0
        self._prefixes = PrefixCache(settings.kv_capacity_tokens)
        self._running: dict[Sequence, None] = {}
        self._waiting: list[tuple[int, int, Sequence]] = []
        self._arrivals = 0

    @property
    def running(self) -> int:
        """Sequences running now."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Sequences waiting now."""
        return len(self._waiting)

    def submit(self, sequences: list[Sequence]) -> None:
        """Take the sequences of one request; raises Overloaded when the queue is full."""
        limit = self.settings.max_queued
        if limit is not None and len(self._waiting) >= limit and self._full():
            self.metrics[sequences[0].model].rejections += 1
            raise Overloaded
        for sequence in sequences:
            self._arrivals += 1
            sequence.arrived = time.monotonic()
            metrics = self.metrics[sequence.model]
            metrics.waiting += 1
            metrics.max_tokens.observe(sequence.max_tokens)
            metrics.params_n.observe(sequence.n)
            order = sequence.priority if self.settings.priority_scheduling else 0
            insort(self._waiting, (order, self._arrivals, sequence))
        self._admit()

    def finish(self, sequence: Sequence, reason: str | None) -> None:
        """End a sequence, running or waiting; `reason` None is an abort that vLLM doesn't count."""
        if sequence.done:
            return
        sequence.done = True
        sequence.planned = -1.0
        metrics = self.metrics[sequence.model]
        if sequence in self._running:
            self._leave(sequence)
        else:
            self._waiting = [entry for entry in self._waiting if entry[2] is not sequence]
            metrics.waiting -= 1
        if reason is not None:
            _observe_finished(metrics, sequence, reason)
            if self.prefix_caching and sequence.ids:
                self._prefixes.touch(sequence.prompt + sequence.ids, sequence.salt)
        self._admit()

    def abort_all(self) -> None:
        """End every sequence with the finish reason "abort", as a stopping server does."""
        everyone = [*self._running, *(entry[2] for entry in self._waiting)]
        for sequence in everyone:
            self.finish(sequence, "abort")
            sequence.sink([], "abort", None)

    def freeze(self, sequence: Sequence) -> None:
        """Let it keep its place and say nothing more."""
        sequence.frozen = True
        sequence.planned = -1.0

    def wake(self, sequence: Sequence) -> None:
        """Go on after the reader caught up."""
        if sequence.stalled and not sequence.done and sequence.running:
            sequence.stalled = False
            self._schedule(sequence, 0.0)

    def _schedule(self, sequence: Sequence, delay: float) -> None:
        """Let it take the next step `delay` seconds after the last one was due."""
        if sequence.frozen:
            return
        now = self.clock.now()
        sequence.due = max(sequence.due, now - _MAX_CATCH_UP) + delay if sequence.due else now + delay
        sequence.planned = sequence.due
        step = partial(self._step, sequence)
        if delay > 0:
            self.clock.at(sequence.due, step)
        else:
            self.clock.soon(step)

    def _step(self, sequence: Sequence) -> None:
        """Make the tokens that are due and plan the next step."""
        if sequence.planned < 0 or sequence.planned > self.clock.now() + _TICK:
            return  # cancelled or planned anew since this call was made
        sequence.planned = -1.0
        if not sequence.ready():
            sequence.stalled = True
            return
        for _ in range(_BURST):
            fresh, reason, stop_id = sequence.produce(self.settings.coalesce)
            self._count_tokens(sequence, len(fresh), time.monotonic())
            if reason:
                self.finish(sequence, reason)
            sequence.sink(fresh, reason, stop_id)
            if sequence.done or sequence.frozen or not sequence.running or not sequence.ready():
                break
            delay = self._gap(sequence)
            if delay > 0:
                self._schedule(sequence, delay)
                return
        if not sequence.done and sequence.running:
            self._schedule(sequence, 0.0)

    def _gap(self, sequence: Sequence) -> float:
        """Return the seconds until the sequence's next step."""
        base = self.settings.itl_ms / 1000 if sequence.itl is None else sequence.itl
        return base * self._slower(self.settings.decode_slowdown)

    def _count_tokens(self, sequence: Sequence, count: int, now: float) -> None:
        """Book new tokens; makes room by preempting the newest sequence when the KV cache is full."""
        metrics = self.metrics[sequence.model]
        if not sequence.first_token:
            sequence.first_token = now
            metrics.ttft.observe(now - sequence.arrived)
            metrics.prefill.observe(now - sequence.admitted)
        else:
            metrics.itl.observe(now - sequence.last_token)
        sequence.last_token = now
        metrics.generation_tokens += count
        self.tokens_out += count
        self.kv_used += count
        while self.kv_used > self.kv_capacity and len(self._running) > 1:
            self._preempt(sequence)

    def reset(self) -> None:
        """Zero the counters and forget the prefixes; what runs goes on."""
        for name, old in self.metrics.items():
            fresh = self.metrics[name] = ModelMetrics()
            fresh.running, fresh.waiting = old.running, old.waiting
        self.max_running = len(self._running)
        self.tokens_out = 0
        self._prefixes.clear()

    def _full(self) -> bool:
        return len(self._running) >= self.settings.max_num_seqs

    def _admit(self) -> None:
        while self._waiting and not self._full():
            sequence = self._waiting[0][2]
            if self._running and self.kv_used + sequence.size > self.kv_capacity:
                return
            del self._waiting[0]
            self._start(sequence)

    def _start(self, sequence: Sequence) -> None:
        metrics = self.metrics[sequence.model]
        metrics.waiting -= 1
        metrics.running += 1
        self._running[sequence] = None
        self.max_running = max(self.max_running, len(self._running))
        self.kv_used += sequence.size
        sequence.running = True
        again = sequence.admitted > 0
        sequence.admitted = sequence.admitted or time.monotonic()
        cached = self._prefixes.touch(sequence.prompt, sequence.salt) if self.prefix_caching else 0
        if not again:
            sequence.cached = cached
            metrics.prefix_queries += len(sequence.prompt)
            metrics.prefix_hits += cached
            metrics.prompt_tokens += len(sequence.prompt)
            metrics.queue.observe(sequence.admitted - sequence.arrived)
        rate = self.settings.prefill_rate
        prefill = (sequence.size - cached) / rate if rate else 0.0
        sequence.due = 0.0
        self._schedule(sequence, (self.settings.ttft_ms / 1000 + prefill) * self._slower(self.settings.prefill_slowdown))

    def _slower(self, slowdown: float) -> float:
        return 1 + slowdown * (len(self._running) - 1)

    def _leave(self, sequence: Sequence) -> None:
        del self._running[sequence]
        sequence.running = False
        self.kv_used -= sequence.size
        self.metrics[sequence.model].running -= 1

    def _preempt(self, keep: Sequence) -> None:
        """Send the newest other sequence back to the head of the queue; its prefill is done again later."""
        victim = next(sequence for sequence in reversed(self._running) if sequence is not keep)
        victim.planned = -1.0
        self._leave(victim)
        metrics = self.metrics[victim.model]
        metrics.preemptions += 1
        metrics.waiting += 1
        order = victim.priority if self.settings.priority_scheduling else 0
        self._arrivals += 1
        insort(self._waiting, (order, -self._arrivals, victim))


def _observe_finished(metrics: ModelMetrics, sequence: Sequence, reason: str) -> None:
    now = time.monotonic()
    metrics.finished[reason] += 1
    metrics.e2e.observe(now - sequence.arrived)
    metrics.prompt_size.observe(len(sequence.prompt))
    metrics.generation_size.observe(len(sequence.ids))
    if sequence.admitted:
        metrics.inference.observe(now - sequence.admitted)
    if sequence.first_token:
        metrics.decode.observe(now - sequence.first_token)
