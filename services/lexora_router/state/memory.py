"""A store in the memory of this process: for one process, for the coordinator of several, and the meaning of the others."""

from collections.abc import Callable, Iterable
from secrets import token_hex

from lexora_router.state.port import Answer, Batch
from lexora_router.state.programs import Programs, Turn

MAX_MEMBERS = 10_000


class Store:
    """Members and the memories of the programs. Every method takes `now`, in seconds of one clock."""

    def __init__(self, programs: Programs) -> None:
        self.epoch = token_hex(8)
        self.names = frozenset(programs)
        self._programs = {name: kind.make() for name, kind in programs.items()}
        self._members: dict[str, float] = {}  # until when each lives

    def exchange(self, batch: Batch, now: float) -> tuple[Answer, set[str]]:
        """Run the programs; gives the answer, and the names of those that have news for the other members."""
        for gone in [member for member, until in self._members.items() if until <= now]:
            del self._members[gone]
        known = batch.member in self._members
        if known or len(self._members) < MAX_MEMBERS:
            self._members[batch.member] = now + batch.ttl
        answers, news = [], set()
        for name, request in batch.asks:
            turn = Turn(batch.member, now, self._members)
            answers.append(self._programs[name].run(request, turn))
            if turn.news:
                news.add(name)
        return Answer(self.epoch, len(self._members), known, tuple(answers)), news

    def leave(self, member: str) -> None:
        """Forget a member."""
        self._members.pop(member, None)


class InMemoryState:
    """A SharedState for members in one process."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._heard: list[Callable[[str, str], None]] = []

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
