"""The program that carries news of endpoints between replicas: what one has found is read by all others, for a while."""

from msgspec import Struct

from lexora_router.state.program import ProgramKind, Turn, lua_beside

MAX_FACTS = 256
"""Facts that are kept; of more the newest."""
FACT_SECONDS = 10.0
"""How long a fact is news. A replica that joins later finds out for itself."""


class Fact(Struct, array_like=True, frozen=True):
    """What happened at an endpoint of a backend. `number` counts the facts of the member that says it, from 1."""

    number: int
    kind: str
    backend: str
    address: str


class BoardAsk(Struct, array_like=True, frozen=True):
    """Facts to be passed on, each said until it was heard, and the place up to which others' have been read."""

    facts: tuple[Fact, ...]
    read: int


class BoardAnswer(Struct, array_like=True, frozen=True):
    """The place up to which this reads, and others' facts since the last."""

    read: int
    facts: tuple[Fact, ...]


class _Posted(Struct, array_like=True):
    place: int
    at: float
    member: str
    fact: Fact


class BoardProgram:
    """The facts of the last seconds."""

    def __init__(self) -> None:
        self._place = 0
        self._posted: list[_Posted] = []
        self._numbers: dict[str, int] = {}  # of each member's last fact

    def run(self, ask: BoardAsk, turn: Turn) -> BoardAnswer:
        """Take in what is new, and give what others have found."""
        self._numbers = {member: number for member, number in self._numbers.items() if member in turn.members}
        for fact in ask.facts:
            if fact.number > self._numbers.get(turn.member, 0):
                self._numbers[turn.member] = fact.number
                self._place += 1
                self._posted.append(_Posted(self._place, turn.now, turn.member, fact))
                turn.news = True
        self._posted = [each for each in self._posted[-MAX_FACTS:] if turn.now - each.at <= FACT_SECONDS]
        facts = tuple(each.fact for each in self._posted if each.place > ask.read and each.member != turn.member)
        return BoardAnswer(self._place, facts)


BOARD = ProgramKind(takes=BoardAsk, gives=BoardAnswer, make=BoardProgram, lua=lua_beside(__file__))
