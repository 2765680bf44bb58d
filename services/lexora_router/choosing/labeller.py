"""The chain of classifiers: the first one that is sure decides, within one budget of time, and once for the same task."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lexora_router.call import Call
from lexora_router.choosing.ask import Cause
from lexora_router.choosing.decide.cache import Memory
from lexora_router.choosing.decide.label import Label
from lexora_router.choosing.decide.text import digest
from lexora_router.choosing.stages import ByRules, Stage
from lexora_router.errors import DeadlineExceeded, RouterError

# After so many timeouts in a row a classifier is not asked for so many seconds: clients need not wait for it.
MAX_TIMEOUTS = 3
REST_SECONDS = 10.0


@dataclass(slots=True)
class _Flight:
    """A question under way, and how many wait for its answer."""

    task: asyncio.Task[Label]
    waiting: int = 0


@dataclass(slots=True)
class _Slowness:
    """Timeouts of a classifier, one after the other, and until when it is left alone for them."""

    timeouts: int = 0
    until: float = 0.0


class Labeller:
    """Names the kind of a task. `timeout` (seconds) is for all stages together; `clock` is monotonic."""

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        min_confidence: float,
        timeout: float,
        memory: Memory[Label],
        clock: Callable[[], float],
    ) -> None:
        self._stages = stages
        self._min_confidence = min_confidence
        self._timeout = timeout
        self._memory = memory
        self._clock = clock
        self._flights: dict[bytes, _Flight] = {}
        self._slowness = {stage.name: _Slowness() for stage in stages}

    async def label(self, text: str, call: Call) -> Label:
        """The label of a normalised text; its `task_type` is empty when no classifier was sure. Raises nothing of its own.

        Calls that ask for the same text at the same time share one question, which goes on while one of them waits for it.
        """
        key = digest(text, call.cache_salt)
        known = self._memory.get(key, self._clock())
        if known is not None:
            return known
        flight = self._flights.get(key)
        if flight is None:
            cause = Cause(call.id, call.trace, self._clock() + self._timeout, call.cache_salt)
            flight = self._flights[key] = _Flight(asyncio.create_task(self._ask(key, text, cause), name="lexora-classify"))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                self._leave(key, flight)

    def predict(self, text: str, call: Call) -> Label:
        """The label as far as it is known without asking a model: a remembered one, or that of rules which come first."""
        known = self._memory.get(digest(text, call.cache_salt), self._clock())
        if known is not None:
            return known
        for stage in self._stages:
            if not isinstance(stage, ByRules):
                return Label("", 0.0, f"The kind of task is not known before {stage.name} is asked.", "")
            label = stage.match(text)
            if label is not None and label.confidence >= self._min_confidence:
                return label
        return Label("", 0.0, "The kind of task is unknown to the rules.", "")

    async def close(self) -> None:
        """End the questions under way."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _leave(self, key: bytes, flight: _Flight) -> None:
        """No call waits any more: a question under way ends, and so the engine stops."""
        flight.task.cancel()
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def _ask(self, key: bytes, text: str, cause: Cause) -> Label:
        notes: list[str] = []
        failed = False
        for stage in self._stages:
            slowness = self._slowness[stage.name]
            if self._clock() < slowness.until:
                failed = True
                notes.append(f"{stage.name}: too slow lately, not asked")
                continue
            try:
                async with asyncio.timeout_at(cause.deadline):
                    label = await stage.label(text, cause)
            except (TimeoutError, DeadlineExceeded):
                failed = True
                notes.append(f"{stage.name}: no answer within {self._timeout:g} s")
                self._note_timeout(slowness)
                break
            except RouterError as error:
                failed = True
                notes.append(f"{stage.name}: failed ({error.reason})")
                continue
            slowness.timeouts = 0
            if label is not None and label.confidence >= self._min_confidence:
                self._memory.put(key, label, self._clock())
                return label
            notes.append(f"{stage.name}: {_doubt(label)}")
        unknown = Label("", 0.0, f"The kind of task is unknown ({'; '.join(notes)}).", "")
        if not failed:
            self._memory.put(key, unknown, self._clock())
        return unknown

    def _note_timeout(self, slowness: _Slowness) -> None:
        slowness.timeouts += 1
        if slowness.timeouts >= MAX_TIMEOUTS:
            slowness.until = self._clock() + REST_SECONDS


def _doubt(label: Label | None) -> str:
    return "abstained" if label is None else f"{label.task_type} with a confidence of only {label.confidence:.2f}"
