"""A program for tests: members report a number, and get the sum over those that live. It uses all kinds of values once."""

from msgspec import Struct

from lexora_router.state.program import ProgramKind, Turn, lua_beside


class TallyRequest(Struct):
    """`add` is a running total; None: as before."""

    add: float | None = None
    parts: list[float] = []
    note: str | None = None


class TallyAnswer(Struct):
    """`by`: by member."""

    total: float
    sum: float
    now: float
    parts: list[float]
    by: dict[str, float] = {}
    note: str | None = None


class Tally:
    """Its memory in Python."""

    def __init__(self) -> None:
        self._by: dict[str, float] = {}

    def run(self, request: TallyRequest, turn: Turn) -> TallyAnswer:
        if request.add is not None and request.add != self._by.get(turn.member, 0):
            self._by[turn.member] = request.add
            turn.news = True
        self._by = {member: each for member, each in self._by.items() if member in turn.members}
        return TallyAnswer(sum(self._by.values()), sum(request.parts), turn.now, request.parts, dict(self._by), request.note)


TALLY = ProgramKind(TallyRequest, TallyAnswer, Tally, lua_beside(__file__))
