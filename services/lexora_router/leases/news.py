"""News of endpoints: what this replica finds is passed on, and what others have found is looked into at once.

A fact of another replica is a reason to look, never a verdict. It has the endpoint probed now, and a breaker that others have
opened opens here after fewer failures. An engine that one replica alone cannot reach stays in use by the others.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Protocol

from lexora_router.state.programs.board import BoardAnswer, BoardAsk, Fact

OPENED, EJECTED, DOWN = "breaker_opened", "ejected", "down"
LOOK_SECONDS = 0.05
"""From one look at all endpoints to the next. Where calls wait for exchanges there are many more of these."""
MAX_UNHEARD = 64
"""Facts that wait to be said; of more the newest."""


class Health(Protocol):
    """The part of an endpoint's condition that is looked at here."""

    healthy: bool | None
    ejections: int

    @property
    def opened(self) -> int:
        """Times that its breaker has opened here."""
        ...

    def warned(self, now: float, *, of_failures: bool) -> None:
        """Another replica has found something wrong with it: look now; `of_failures`: calls failed there."""


@dataclass(slots=True)
class _Seen:
    opened: int
    ejections: int
    down: bool


Watched = tuple[str, str, Health]
"""Backend, address, condition."""


class HealthNews:
    """A participant in the exchanges with the store. `watched` gives all endpoints."""

    program = "board"

    def __init__(self, watched: Callable[[], Iterable[Watched]]) -> None:
        self._watched = watched
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._unheard: deque[Fact] = deque(maxlen=MAX_UNHEARD)
        self._number = 0
        self._said = 0
        self._read = 0
        self._looked_at = -inf

    def ask(self, now: float) -> BoardAsk:
        """What has happened here, as far as it was looked at."""
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._look()
        self._said = self._number
        return BoardAsk(tuple(self._unheard), self._read)

    def _look(self) -> None:
        seen: dict[tuple[str, str], _Seen] = {}
        for backend, address, health in self._watched():
            key = backend, address
            then = self._seen.get(key)
            seen[key] = this = _Seen(health.opened, health.ejections, health.healthy is False)
            if then is not None:
                kinds = ((OPENED, this.opened > then.opened), (EJECTED, this.ejections > then.ejections))
                for kind, happened in (*kinds, (DOWN, this.down and not then.down)):
                    if happened:
                        self._number += 1
                        self._unheard.append(Fact(self._number, kind, backend, address))
        self._seen = seen

    def hear(self, answer: BoardAnswer, now: float) -> None:
        """Look into what others have found."""
        while self._unheard and self._unheard[0].number <= self._said:
            self._unheard.popleft()
        self._read = answer.read
        if not answer.facts:
            return
        conditions = {(backend, address): health for backend, address, health in self._watched()}
        for fact in answer.facts:
            health = conditions.get((fact.backend, fact.address))
            if health is not None:
                health.warned(now, of_failures=fact.kind == OPENED)

    def alone(self, share: float, now: float) -> None:
        """Each replica finds out for itself."""

    def together(self, now: float, *, fresh: bool) -> None:
        """Go on; a store that has forgotten counts from the beginning."""
        if fresh:
            self._read = 0
