"""One sequence: a prompt, and the tokens that follow it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lexora_sim.text.vocabulary import EOS

if TYPE_CHECKING:
    from lexora_sim.text.language import Source

# (new token ids, finish reason or None, stop token id or None)
Sink = Callable[[list[int], str | None, int | None], None]


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """What the scheduler runs. `max_tokens` 0 means prefill only, as for pooling.

    `sink` gets every step; it may call `Scheduler.finish` to stop early. `ready` is whether the reader keeps up.
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
    salt: str = ""  # of its prompt in the prefix cache
    itl: float | None = None  # seconds, instead of the server's
    n: int = 1  # choices of its request, for the metrics
    ready: Callable[[], bool] = lambda: True

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

    def produce(self, most: int) -> tuple[list[int], str | None, int | None]:
        """Make up to `most` tokens: the new ids, the finish reason where it ends, and the id of the stop token."""
        fresh: list[int] = []
        for _ in range(most):
            if len(self.ids) >= self.max_tokens:
                return fresh, "length", None
            may_end = not self.ignore_eos and len(self.ids) >= self.min_tokens
            token = self.source.next(may_end=may_end)
            self.ids.append(token)
            fresh.append(token)
            if token == EOS:
                return fresh, "stop", None
            if token in self.stop_ids and may_end:
                return fresh, "stop", token
            if len(self.ids) >= self.max_tokens:
                return fresh, "length", None
        return fresh, None, None
