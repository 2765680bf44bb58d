"""A store in the memory of a process: for the coordinator of several, for tests, and the meaning of the other one."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import DecodeError, ValidationError, msgpack

from lexora_router.state.port import Answer, Batch, StateUnavailable
from lexora_router.state.program import Program, Programs, Turn

MAX_MEMBERS = 10_000


class Store:
    """Members and the memories of the programs. Every method takes `now`, in seconds; a clock that goes back stands still."""

    def __init__(self, programs: Programs) -> None:
        self.names = frozenset(programs)
        self._programs: dict[str, tuple[msgpack.Decoder[Any], Program]] = {
            name: (msgpack.Decoder(kind.takes), kind.make()) for name, kind in programs.items()
        }
        self._members: dict[str, float] = {}  # until when each lives
        self._numbers: dict[str, int] = {}  # of the last exchange of each
        self._clock = Clock()
        self._pack = msgpack.Encoder().encode

    def exchange(self, batch: Batch, now: float) -> tuple[Answer, set[str]]:
        """Run the programs; gives the answer, and the names of those that have news for the other members.

        Raises StateUnavailable for what cannot be run; then nothing has.
        """
        source, now, member = now, self._clock.at(now), batch.member
        for gone in [each for each, until in self._members.items() if until <= now]:
            self.leave(gone)
        if not (batch.join or member in self._members):
            return Answer(known=False, members=len(self._members)), set()
        if batch.number <= self._numbers.get(member, -1):
            raise StateUnavailable("an exchange came behind a later one")
        requests = [self._request(*ask) for ask in batch.asks]
        if member not in self._members and len(self._members) >= MAX_MEMBERS:
            raise StateUnavailable(f"there are {MAX_MEMBERS} replicas already")
        self._clock.read(source)  # only here: in Valkey an exchange that is not run writes nothing down
        self._members[member], self._numbers[member] = now + batch.ttl, batch.number
        answers, news = [], set()
        for (name, _), request in zip(batch.asks, requests, strict=True):
            turn = Turn(member, now, self._members)
            answers.append(self._pack(self._programs[name][1].run(request, turn)))
            if turn.news:
                news.add(name)
        return Answer(True, len(self._members), tuple(answers)), news

    def leave(self, member: str) -> None:
        """Forget a member."""
        self._members.pop(member, None)
        self._numbers.pop(member, None)

    def expire(self, member: str, seconds: float, now: float) -> None:
        """Let a member that has lost its connection live for so long at most, unless it exchanges again."""
        if member in self._members:
            self._members[member] = min(self._members[member], self._clock.read(now) + seconds)

    def _request(self, program: str, request: bytes) -> object:
        if program not in self._programs:
            raise StateUnavailable(f"the store has no program {program}")
        try:
            return self._programs[program][0].decode(request)
        except (DecodeError, ValidationError) as error:
            raise StateUnavailable(f"a request to {program} cannot be read: {error}") from error


class Clock:
    """Time that never goes back: it stands still for as long as its source does, and goes on from there."""

    def __init__(self) -> None:
        self._last = -math.inf
        self._ahead = 0.0

    def at(self, now: float) -> float:
        """The time, where the source says `now`."""
        return max(now, self._last) + self._ahead

    def read(self, now: float) -> float:
        """The same; from here on it does not go back behind this."""
        if now < self._last:
            self._ahead += self._last - now
        self._last = now
        return now + self._ahead


class InMemoryState:
    """A SharedState for members in one process."""

    where = "this process"

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._heard: list[Callable[[str, str], None]] = []

    async def open(self) -> None:
        """Nothing is to be opened."""

    async def exchange(self, batch: Batch) -> Answer:
        """Run it at once."""
        answer, news = self._store.exchange(batch, self._clock())
        self._tell(news, batch.member)
        return answer

    def on_news(self, heard: Callable[[str, str], None]) -> None:
        """Call this with the program that has news, and the member that they are from."""
        self._heard.append(heard)

    async def leave(self, member: str) -> None:
        """End the membership."""
        self._store.leave(member)
        self._tell(self._store.names, member)

    async def close(self) -> None:
        """Nothing is open."""

    def _tell(self, programs: Iterable[str], member: str) -> None:
        for program in programs:
            for heard in self._heard:
                heard(program, member)
