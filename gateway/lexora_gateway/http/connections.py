"""How many HTTP connections there may be, in all and from one address; idle ones make room first.

A connection costs a file descriptor, and its call needs a second one at an engine: without a bound, clients that only hold
connections would leave none for engines. To close an idle connection is every server's right (RFC 9112, section 9.5), and
one that was idle for long is closed in any case.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Refused connections that may still read why at one time; further ones are dropped at once.
MAX_LINGERING = 16
LOG_SECONDS = 10.0
# Of a crowd that has just come, many may have sent what is not read yet: so many are asked to make room for one.
MOST_ASKED = 16


class Connection(Protocol):
    """An open connection."""

    def drain(self) -> None:
        """End with the next answer, or now when none is due."""

    def close_idle(self) -> bool:
        """Close it, unless something came that is not read yet. Whether it is closed; nothing is under way on it."""


@dataclass(slots=True)
class _Address:
    count: int = 0
    idle: OrderedDict[Connection, None] = field(default_factory=OrderedDict)  # the one that is idle for longest first


class Connections:
    """The open connections of one server, at most `most` in all and `most_per_address` from one client address.

    `refused` counts those for which no room could be made, by the bound that they met.
    """

    def __init__(
        self,
        most: int = sys.maxsize,
        most_per_address: int = sys.maxsize,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most = most
        self.most_per_address = most_per_address
        self._clock = clock
        self._logged_at = float("-inf")
        self._unlogged = 0
        self.draining = False
        self.last_answers = False  # no connection is kept after its next one
        self.lingering = 0  # refused ones that may still read why
        self.refused = {"server.max_connections": 0, "server.max_connections_per_address": 0}
        self._addresses: dict[str, _Address] = {}
        self._of: dict[Connection, str] = {}
        self._idle: OrderedDict[Connection, float] = OrderedDict()  # and since when

    @property
    def open(self) -> int:
        """Connections that are open."""
        return len(self._of)

    def drain(self) -> None:
        """The process ends: each connection ends with its next answer, and idle ones at once. New ones are still taken."""
        self.draining = self.last_answers = True
        for connection in list(self._of):
            connection.drain()

    def retire(self) -> None:
        """Another process takes over: each connection ends with its next answer, which says so. Idle ones are kept for that."""
        self.last_answers = True

    def admit(self, connection: Connection, address: str) -> str:
        """Take a new connection, which is idle; closes an idle one where that makes room. The bound that it met, else empty."""
        known = self._addresses.get(address)
        bound = ""
        if known is not None and known.count >= self.most_per_address and not self._close_one(known.idle):
            bound = "server.max_connections_per_address"
        elif len(self._of) >= self.most and not self._close_one(self._idle):
            bound = "server.max_connections"
        if bound:
            self.refused[bound] += 1
            self._unlogged += 1
            return bound
        self._of[connection] = address
        self._addresses.setdefault(address, _Address()).count += 1
        self.idle(connection)
        return ""

    def forget(self, connection: Connection) -> None:
        """It is closed, or about to be. One that was not admitted does not count."""
        address = self._of.pop(connection, None)
        if address is None:
            return
        self._idle.pop(connection, None)
        known = self._addresses[address]
        known.idle.pop(connection, None)
        known.count -= 1
        if not known.count:
            del self._addresses[address]

    def idle(self, connection: Connection) -> None:
        """Nothing is under way on it from now on."""
        address = self._of.get(connection)
        if address is not None:
            self._idle[connection] = self._clock()
            self._addresses[address].idle[connection] = None

    def busy(self, connection: Connection) -> None:
        """A request has begun on it."""
        if self._idle.pop(connection, None) is not None:
            self._addresses[self._of[connection]].idle.pop(connection, None)

    def close_idle_for(self, seconds: float) -> float:
        """Close the connections that were idle for so long. Returns the seconds until the next one may be due."""
        now = self._clock()
        while self._idle:
            oldest, since = next(iter(self._idle.items()))
            left = since + seconds - now
            if left > 0 or not oldest.close_idle():
                return max(left, 0.0)
            self.forget(oldest)
        return seconds

    def unlogged(self, now: float) -> int:
        """Connections that were refused since the last line of the log, 0 while it is too early for the next one."""
        if now - self._logged_at < LOG_SECONDS:
            return 0
        self._logged_at = now
        times, self._unlogged = self._unlogged, 0
        return times

    def _close_one(self, idle: Mapping[Connection, object]) -> bool:
        for connection in islice(idle, MOST_ASKED):  # the one that is idle for longest first
            if connection.close_idle():
                self.forget(connection)
                return True
        return False


def bounded(descriptors: int, most: int | None = None, most_per_address: int | None = None) -> Connections:
    """Bounds for a process with so many file descriptors: by default half of them, the others are for engines and all else.

    One address may have half of that by default: a proxy in front of many users is one address too.
    """
    in_all = max(descriptors // 2, 1) if most is None else most
    return Connections(in_all, max(in_all // 2, 1) if most_per_address is None else most_per_address)
