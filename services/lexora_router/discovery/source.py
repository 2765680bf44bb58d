"""What every source of addresses gives: a set of them, or the reason why there is none."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

# As many endpoints as statistics keep apart by name. Each is probed and has connections of its own.
MAX_ADDRESSES = 1000


class LookFailed(Exception):
    """Nothing could be found out; the message says why, for people, and the addresses of before hold.

    `again_in`: seconds after which to look again, where the source is to say it.
    """

    def __init__(self, message: str, again_in: float | None = None) -> None:
        super().__init__(message)
        self.again_in = again_in


@dataclass(frozen=True, slots=True)
class Found:
    """Addresses, each `host:port` with IPv6 in brackets, once and in order. `again_in`: seconds until the next look.

    `left_out` are those beyond MAX_ADDRESSES.
    """

    addresses: tuple[str, ...]
    again_in: float
    left_out: int = 0


class Source(Protocol):
    """One place to look at. `what` names it in a few words."""

    what: str

    async def look(self) -> Found:
        """What is there now; after the first look a source may wait until there is something new. Raises LookFailed."""

    async def close(self) -> None:
        """Give back what is held between two looks."""


def found(addresses: Iterable[str], again_in: float) -> Found:
    """The set of these addresses. The same ones always come in the same order, so that a bound leaves out the same."""
    every = sorted(set(addresses))
    return Found(tuple(every[:MAX_ADDRESSES]), again_in, max(0, len(every) - MAX_ADDRESSES))


def address(host: str, port: int) -> str:
    """Host and port as one address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
