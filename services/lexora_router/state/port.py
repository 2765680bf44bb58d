"""The port to what replicas share: exchanges, each one round trip and atomic, with a store that runs small programs.

A replica is a *member* of the store for as long as its exchanges come: whatever a member holds is free again when it has been
silent for its `ttl`. An exchange may be lost on its way there or back, and may have run although it timed out; so programs take
and give running totals, never differences, and the same exchange twice is the same as once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from msgspec import Struct


class StateUnavailable(Exception):
    """The store did not answer in time, or not in sense. The text is for operators."""


class Ask(NamedTuple):
    """A request to one program of the store."""

    program: str
    request: Struct


class Batch(NamedTuple):
    """One exchange: the member that asks, the seconds of silence after which it is given up, and its requests."""

    member: str
    ttl: float
    asks: tuple[Ask, ...]


class Answer(NamedTuple):
    """What an exchange gives: one answer for each request, in their order.

    `epoch` names the store's memory: another one than before means that all has been forgotten there. `members` counts the
    replicas that live, the asking one included. `known`: the store remembered this member; where it did not, what the member
    held there has been given to others.
    """

    epoch: str
    members: int
    known: bool
    answers: tuple[Any, ...]


class SharedState(Protocol):
    """A store that replicas share."""

    async def exchange(self, batch: Batch) -> Answer:
        """Run these programs, all or none, and renew the membership. Raises StateUnavailable."""
        ...

    def on_news(self, heard: Callable[[str, str], None]) -> None:
        """Call this with a program and a member when that member's exchange has changed what others may wait for there."""

    async def leave(self, member: str) -> None:
        """End the membership; what the member holds is free at once. Raises StateUnavailable."""

    async def close(self) -> None:
        """Close the connections."""
