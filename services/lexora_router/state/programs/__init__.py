"""The programs of a store, as tables that a store of any kind is made from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from msgspec import Struct


@dataclass(slots=True)
class Turn:
    """One member's request at a program. `now` is the store's clock in seconds; `members` are those that live."""

    member: str
    now: float
    members: Mapping[str, float]
    news: bool = field(default=False)  # set by a program: other members may find now what they wait for


class Program(Protocol):
    """A program and its memory. Bounded, and without a clock of its own."""

    def run(self, request: Any, turn: Turn) -> Struct:
        """Answer one member's request."""
        ...


@dataclass(frozen=True, slots=True)
class ProgramKind:
    """A program: what it takes and gives, how one with an empty memory is made, and the file of the same program in Lua."""

    takes: type[Struct]
    gives: type[Struct]
    make: Callable[[], Program]
    lua: str


Programs = Mapping[str, ProgramKind]
