"""One origin: scheme, host and port, with the connections that are kept to it."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from functools import partial

from lexora_contract.port import Flow
from lexora_router.engines.dial import Dialer, only_one
from lexora_router.engines.http1 import Connection
from lexora_router.engines.local_shortage import LOCAL, shortages
from lexora_router.engines.response import Answer
from lexora_router.engines.tls import EngineSecurity
from lexora_router.engines.transport_errors import ConnectError, ConnectTimeout, LocalShortage

# Servers in Python (uvicorn, vLLM) close idle connections after 5 s; ours go first, or a request meets a closing socket.
KEEPALIVE_SECONDS = 4.0


class Origin:
    """Makes, keeps and drops connections. `security` is None for plain TCP. Raises OSError where its files cannot be used."""

    def __init__(
        self, host: str, port: int, *, security: EngineSecurity | None, connect_timeout: float, clock: Callable[[], float]
    ) -> None:
        self._host = host
        self._dialer = Dialer(host, port, clock=clock)
        self._security = security
        if security is not None:
            security()
        self._connect_timeout = connect_timeout
        self.now = clock
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._reaper: asyncio.TimerHandle | None = None
        self._retired = False

    @property
    def open(self) -> int:
        """Connections there are, idle ones included."""
        return len(self._open)

    async def send(self, head: bytes, body: bytes, answer: Answer, flow: Flow) -> Connection:
        """Send a request; await `ended` of the connection at once. Raises TransportError.

        `head` ends with an empty line and has the body's content-length. After StaleConnection the next one that is sent gets a
        connection of its own: what was kept as long as a stale one is dropped with it.
        """
        connection = self._kept() or await self._connect()
        connection.send(head, body, answer, flow)
        return connection

    async def reach(self) -> None:
        """Return when the host has taken a connection, which is closed at once. Raises TransportError."""
        (await self._connect()).close()

    def close(self) -> None:
        """Drop every connection."""
        if self._reaper is not None:
            self._reaper.cancel()
        for connection in list(self._open):
            connection.close()

    def retire(self) -> None:
        """Keep no connection from now on: those in use go when their answers have ended."""
        self._retired = True
        self.drop_idle()

    def keep(self, connection: Connection) -> None:
        """Hold a connection for the next request."""
        if self._retired:
            connection.close()
            return
        connection.idle_since = self.now()
        self._idle.append(connection)
        if self._reaper is None:
            self._reaper = asyncio.get_running_loop().call_later(KEEPALIVE_SECONDS, self._reap)

    def forget(self, connection: Connection) -> None:
        """The connection is gone."""
        self._open.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def drop_idle(self) -> None:
        """Close what is kept."""
        for connection in list(self._idle):
            connection.close()

    def _kept(self) -> Connection | None:
        """The connection that was used last: it is the least likely to have been closed."""
        oldest = self.now() - KEEPALIVE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    async def _connect(self) -> Connection:
        connection = Connection(self)
        try:
            await self._open_up(connection)
        except BaseException:
            connection.close()  # it may have been made just as the time was over, or as the call left
            raise
        self._open.add(connection)
        return connection

    async def _open_up(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._attach(connection)
        except TimeoutError:
            raise ConnectTimeout(f"no connection within {self._connect_timeout:g} s (connect_timeout)") from None
        except ssl.SSLError as error:
            raise ConnectError(f"the TLS handshake failed ({error.reason or type(error).__name__})") from error
        except UnicodeError as error:  # what the resolver makes of a label of 64 characters
            raise ConnectError("the host name is not valid") from error
        except OSError as error:
            if error.errno in LOCAL and not isinstance(error, socket.gaierror):
                raise LocalShortage(f"out of {shortages.note(error.errno)}") from error
            raise ConnectError(_why(error)) from error

    async def _attach(self, connection: Connection) -> None:
        tls, name = None, None
        if self._security is not None:
            tls, name = self._security(), self._security.server_name or self._host
        create = partial(asyncio.get_running_loop().create_connection, lambda: connection, ssl=tls, server_hostname=name)
        found = await self._dialer.addresses()
        if address := only_one(found):
            await create(*address)  # in uvloop's own code: a quarter of the CPU that a socket made here takes
            return
        sock = await self._dialer.race(found)
        try:
            await create(sock=sock)
        except BaseException:
            sock.close()
            raise

    def _reap(self) -> None:
        """Close what has been idle for too long, so that a quiet gateway holds no connections."""
        self._reaper = None
        oldest = self.now() - KEEPALIVE_SECONDS
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle.pop(0).close()
        if self._idle:
            self._reaper = asyncio.get_running_loop().call_later(KEEPALIVE_SECONDS, self._reap)


def _why(error: OSError) -> str:
    """The system's words; several addresses that fail alike say the same once. Resolvers have words of their own."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or "cannot connect"
    return os.strerror(error.errno)
