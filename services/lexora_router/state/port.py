"""The port to what replicas share: exchanges, each one round trip and atomic, with a store that runs small programs.

A replica is a *member* of the store for as long as its exchanges come: whatever a member holds is free again when it has been
silent for its `ttl`. An exchange may be lost on its way there or back, and may have run although it timed out; so programs take
and give running totals, never differences. Each exchange of a member has a higher number than the one before: one that comes
late, behind a later one, is not run.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

MAX_BATCH_BYTES = 256 * 1024
"""Of all requests of one exchange, packed. A participant says more in a later one."""


class StateUnavailable(Exception):
    """The store did not answer in time, or not in sense. The text is for operators, and has no secret."""


class Ask(NamedTuple):
    """A request to one program of the store, packed as its `takes` by msgpack."""

    program: str
    request: bytes


class Batch(NamedTuple):
    """One exchange: the member that asks, the seconds of silence after which it is given up, and its requests.

    `join` begins the membership, of a member that has never been one. Without it the requests of a member that the store does
    not remember are not run: what it held has been given to others.
    """

    member: str
    ttl: float
    number: int
    join: bool = False
    asks: tuple[Ask, ...] = ()


class Answer(NamedTuple):
    """What an exchange gives: one packed answer for each request, in their order; none where the member is not known.

    `members` counts the replicas that live, the asking one included.
    """

    known: bool
    members: int
    answers: tuple[bytes, ...] = ()


class SharedState(Protocol):
    """A store that replicas share. One exchange at a time; a call that is cancelled leaves no half of one behind."""

    @property
    def where(self) -> str:
        """Where the store is, for the log; without a secret."""
        ...

    async def open(self) -> None:
        """Connect, for as long as that takes. Raises StateUnavailable."""

    async def exchange(self, batch: Batch) -> Answer:
        """Run these programs, all or none, and renew the membership. Raises StateUnavailable."""
        ...

    def on_news(self, heard: Callable[[str, str], None]) -> None:
        """Call this with a program and a member when that member's exchange has changed what others may wait for there."""

    async def leave(self, member: str) -> None:
        """End the membership; what the member holds is free at once. Raises StateUnavailable."""

    async def close(self) -> None:
        """Close the connections."""
