"""What a program of a store is: a small state machine, in Python and in Lua.

The Python one is the meaning, and runs in the coordinator of several workers; the same in Lua runs as a function of Valkey. A
file `programs/NAME.lua` is a chunk that returns `function(request, turn)`, which gives the answer. There `turn` has

- `member`, `now` (seconds) and `members` (a table of the seconds until which each lives), as `Turn`;
- `news`, to set;
- `call(...)`: a command of Valkey; numbers are passed as they are, while `..` and tostring() keep 14 digits only;
- `key(name)`: the name of a key of this program; it is new where the store has lost its memory;
- `lasting(name)`: the same of one that stays where the store has lost the members alone, such as after a day without any;
- `keep`: the seconds to EXPIRE each key after.

Requests and answers travel as msgpack, in Lua by cmsgpack: an absent field is nil; an empty table is packed as a list, so a map
that may be empty has a default in its Struct, and is nil in Lua while it is empty (`next(map) and map or nil`); whole numbers
are packed as integers, which msgspec takes for floats.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct


@dataclass(slots=True)
class Turn:
    """One member's request at a program. `now` is the store's clock in seconds, which never goes back.

    `members` are those that live, the asking one included, each with the time until which it does. What others held is free.
    """

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
    """A program: what it takes and gives, how one with an empty memory is made, and the source of the same program in Lua."""

    takes: type[Struct]
    gives: type[Struct]
    make: Callable[[], Program]
    lua: str = field(repr=False)


Programs = Mapping[str, ProgramKind]


def lua_beside(file: str) -> str:
    """The source in Lua beside a program's Python file."""
    return Path(file).with_suffix(".lua").read_text(encoding="utf-8")
