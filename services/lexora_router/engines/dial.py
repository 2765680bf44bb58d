"""Connections to one host and port: the name is resolved, and its addresses race (Happy Eyeballs, RFC 8305).

uvloop's `create_connection` tries one address after the other and waits for each, so one that swallows packets would cost every
call its `connect_timeout`.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from aiohappyeyeballs import AddrInfoType, addr_to_addr_infos, start_connection

# Connection Attempt Delay (RFC 8305, section 5): the next address is tried beside one that has not answered for so long.
ATTEMPT_DELAY_SECONDS = 0.25
# How long an address that won against an earlier one goes first (RFC 6555, section 4.1), before the order is tried anew.
REMEMBER_SECONDS = 600.0

Resolve = Callable[[str, int], Coroutine[Any, Any, list[AddrInfoType]]]


async def resolve(host: str, port: int) -> list[AddrInfoType]:
    """The addresses of a name, in the order in which to try them (RFC 6724). Raises OSError, UnicodeError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, kind, proto, "", address) for family, kind, proto, _, address in found]


class Dialer:
    """Makes connected sockets. `good` is the address that goes first; None for the resolver's order.

    Calls that wait share one question to the resolver: one that hangs holds one thread, not one per call.
    """

    def __init__(self, host: str, port: int, *, clock: Callable[[], float], resolver: Resolve | None = None) -> None:
        self._host = host
        self._port = port
        self._clock = clock
        self._resolve = resolver or resolve
        self._literal = _literal(host, port)
        self._question: asyncio.Task[list[AddrInfoType]] | None = None
        self._good_until = 0.0
        self.good: AddrInfoType | None = None

    async def addresses(self) -> list[AddrInfoType]:
        """The addresses of the host, as the resolver orders them. Raises OSError, UnicodeError for an invalid name."""
        return self._literal or await self._found()

    async def race(self, found: list[AddrInfoType]) -> socket.socket:
        """A connected, non-blocking socket to one of these addresses, the caller's to close. Raises OSError."""
        ordered = self._good_first(found)
        try:
            made = await start_connection(ordered, happy_eyeballs_delay=ATTEMPT_DELAY_SECONDS, interleave=1)
        except BaseException:
            self.good = None
            raise
        self._remember(made, found)
        return made

    async def _found(self) -> list[AddrInfoType]:
        if self._question is None:
            self._question = asyncio.create_task(self._resolve(self._host, self._port), name="lexora-resolve")
            self._question.add_done_callback(self._answered)
        return await asyncio.shield(self._question)

    def _answered(self, question: "asyncio.Task[list[AddrInfoType]]") -> None:
        self._question = None
        if not question.cancelled():
            question.exception()  # it may be that nothing waits for it any more

    def _good_first(self, found: list[AddrInfoType]) -> list[AddrInfoType]:
        good = self.good
        if good not in found or self._clock() > self._good_until:
            self.good = None
            return found
        return [good, *(one for one in found if one != good)]

    def _remember(self, made: socket.socket, found: list[AddrInfoType]) -> None:
        """An address that won only because an earlier one did not answer; else names that rotate would not any more."""
        peer = made.getpeername()
        winner = next((one for one in found if one[4][:2] == peer[:2]), None)
        if winner == self.good:
            return
        self.good = None if winner == found[0] else winner
        self._good_until = self._clock() + REMEMBER_SECONDS


def only_one(found: list[AddrInfoType]) -> tuple[str, int] | None:
    """Host and port where there is nothing to race, and nothing more to an address."""
    if len(found) != 1 or found[0][4][2:] not in ((), (0, 0)):
        return None
    return found[0][4][0], found[0][4][1]


def _literal(host: str, port: int) -> list[AddrInfoType] | None:
    """An address that needs no resolver; None for a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    return addr_to_addr_infos((host, port))
