"""Values of the contract's enums as words: BREAKER_STATE_HALF_OPEN is `half_open`."""

from functools import cache
from typing import Any

UNKNOWN = "unknown"


def word(enum: Any, number: int) -> str:
    """The word of a value; `unknown` of an unset one, and of one that a later version has. `enum`: its class or descriptor."""
    return _words(getattr(enum, "DESCRIPTOR", enum)).get(number, UNKNOWN)


def value(enum: Any, name: str) -> Any:
    """The value of a word, in whatever case; the unspecified one for a word that none has."""
    return _values(getattr(enum, "DESCRIPTOR", enum)).get(name.lower(), 0)


@cache
def _words(enum: Any) -> dict[int, str]:
    prefix: str = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {number: each.name.removeprefix(prefix).lower() for number, each in enum.values_by_number.items() if number}


@cache
def _values(enum: Any) -> dict[str, int]:
    return {name: number for number, name in _words(enum).items()}
