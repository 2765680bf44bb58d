"""A SharedState in a Valkey or Redis server: a function that the server runs carries each exchange.

One connection is for exchanges and one for news. All keys have one hash tag, so that they are on one server of a cluster.
"""

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from secrets import token_hex
from typing import Any

import structlog
from valkey.asyncio.connection import AbstractConnection, Connection, SSLConnection
from valkey.exceptions import AuthenticationError, NoPermissionError, NoScriptError, ResponseError, ValkeyError

from lexora_router.state.address import Address, Kind, place
from lexora_router.state.port import Answer, Batch, StateUnavailable
from lexora_router.state.program import Programs
from lexora_router.state.script import Way, ways
from lexora_router.state.tls_context import USUAL, Security, TlsContext
from lexora_router.state.valkey_errors import explained

MAX_REDIRECTS = 3
HOST_SECONDS = 0.3
"""For one of several hosts: one that swallows packets must not keep the others from being asked."""
NEWS_PAUSE_SECONDS = 1.0
_LATE = -1
_MOVED = re.compile(r"MOVED \d+ (.*):(\d+)")

_log = structlog.get_logger("lexora.state")


class ValkeyState:
    """See SharedState. `namespace` keeps the replicas of several gateways apart on one server."""

    def __init__(self, address: Address, programs: Programs, *, namespace: str, security: Security = USUAL) -> None:
        self._address = address
        self._hosts = deque(address.hosts)  # that one first which answered last
        self._tls = TlsContext(security)
        self._base = f"{{lexora:{namespace}}}:v1:"
        self.key = f"{self._base}members".encode()
        self._ways = ways(programs)
        self._names = tuple(name.encode() for name in programs)
        self._way: Way | None = None
        self._connection: AbstractConnection | None = None
        self._question: asyncio.Task[Any] | None = None  # to the resolver
        self._heard: Callable[[str, str], None] = lambda *_: None
        self._news: asyncio.Task[None] | None = None
        self._where: tuple[str, int] | None = None  # the server of the last connection

    @property
    def where(self) -> str:
        """The server of the last connection, or the configured address before there is one."""
        return self._address.shown if self._where is None else place(*self._where)

    async def open(self) -> None:
        """Connect to the server that has the keys, sign in, and load the function."""
        await self._drop()
        connection = await self._sensible(self._connected())
        try:
            await self._sensible(self._load(connection))
        except BaseException:
            await _abandon(connection)
            raise
        self._connection = connection
        if self._news is not None:
            self._news.cancel()  # of a server that may hang, or be another one
        self._news = asyncio.create_task(self._listen(), name="lexora-state-news")

    async def exchange(self, batch: Batch) -> Answer:
        """One call of the function."""
        found = await self._run(
            b"exchange",
            batch.member.encode(),
            b"%f" % batch.ttl,
            b"%d" % batch.number,
            b"1" if batch.join else b"0",
            token_hex(8).encode(),
            *(part for ask in batch.asks for part in (ask.program.encode(), ask.request)),
        )
        return _answer(found, len(batch.asks))

    def on_news(self, heard: Callable[[str, str], None]) -> None:
        """Call this with a program and a member when news of it come in."""
        self._heard = heard

    async def leave(self, member: str) -> None:
        """End the membership."""
        await self._run(b"leave", member.encode(), *self._names)

    async def close(self) -> None:
        """Close both connections."""
        await self._drop()
        for task in (self._news, self._question):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def attempt(self) -> None:
        """Let the function try what exchanges need. Raises StateUnavailable."""
        await self._run(b"try")

    async def version(self) -> str:
        """The server's name and version, for people; empty where it may not be asked."""
        assert self._connection is not None
        try:
            found: bytes = await _command(self._connection, b"INFO", b"server")
        except ResponseError:
            return ""
        lines = dict(line.partition(":")[::2] for line in found.decode("utf-8", "replace").splitlines())
        if "valkey_version" in lines:
            return f"Valkey {lines['valkey_version']}"
        return f"Redis {lines['redis_version']}" if "redis_version" in lines else ""

    async def _run(self, *arguments: bytes) -> Any:
        connection, way = self._connection, self._way
        if connection is None or way is None:
            raise StateUnavailable("there is no connection to the store")
        command = (*way.call, b"1", self.key, *arguments)
        try:
            try:
                return await self._sensible(_command(connection, *command))
            except _Absent:
                await self._sensible(self._load(connection))
                return await self._sensible(_command(connection, *command))
        except BaseException:
            await self._drop()
            raise

    async def _load(self, connection: AbstractConnection) -> None:
        """Load the function, or where this user may not do that, the script."""
        for way in self._ways:
            try:
                await self._load_by(way, connection)
            except NoPermissionError:
                if way is self._ways[-1]:
                    raise
            else:
                self._way = way
                return

    async def _load_by(self, way: Way, connection: AbstractConnection) -> None:
        try:
            await _command(connection, *way.load)
        except ResponseError as error:
            if "already exists" not in str(error):
                raise
        await _command(connection, *way.call, b"1", self.key, b"try")  # to load it and to call it are two rights

    async def _connected(self) -> AbstractConnection:
        """A connection to the server that has the keys and may write."""
        where = await self._first()
        for _ in range(MAX_REDIRECTS):
            connection = await self._to(where)
            try:
                await _command(connection, b"EXISTS", self.key)
            except BaseException as error:
                await _abandon(connection)
                moved = _MOVED.fullmatch(str(error)) if isinstance(error, ResponseError) else None
                if moved is None:
                    raise
                where = (moved[1] or where[0], int(moved[2]))
            else:
                self._where = where
                return connection
        raise StateUnavailable("the servers of the cluster name each other for the keys")

    async def _first(self) -> tuple[str, int]:
        """The server to connect to. Raises StateUnavailable, ValkeyError."""
        if self._address.kind is Kind.SERVER:
            return self._hosts[0]
        failure: Exception = StateUnavailable(f"no host answers within {HOST_SECONDS:g} s")
        for _ in self._address.hosts:
            try:
                async with asyncio.timeout(HOST_SECONDS):
                    return await self._at(self._hosts[0])
            except TimeoutError:
                self._hosts.rotate(-1)
            except (ValkeyError, StateUnavailable, OSError) as error:
                failure = error
                self._hosts.rotate(-1)
        raise failure

    async def _at(self, host: tuple[str, int]) -> tuple[str, int]:
        """The server that one of several hosts names."""
        if self._address.kind is Kind.CLUSTER:
            await _abandon(await self._to(host))
            return host
        address, refused = replace(self._address, database=0), None
        nothing = replace(address, user=None, password=None)
        for signs in (nothing, address, replace(address, user=None)):  # Sentinels have users of their own, or none
            try:
                return await self._master(host, signs)
            except AuthenticationError as error:
                refused = error
        assert refused is not None
        raise refused

    async def _master(self, sentinel: tuple[str, int], address: Address) -> tuple[str, int]:
        connection = await self._to(sentinel, address)
        try:
            found = await _command(connection, b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._address.service.encode())
        finally:
            await _abandon(connection)
        if found is None:
            raise StateUnavailable(f"the Sentinels have no service {self._address.service}")
        return found[0].decode(), int(found[1])

    async def _to(self, where: tuple[str, int], address: Address | None = None) -> AbstractConnection:
        """A connection that has signed in. Raises ValkeyError."""
        host, port = where
        await self._resolved(host, port)
        address = address or self._address
        settings: dict[str, Any] = {
            "host": host,
            "port": port,
            "db": address.database,
            "username": address.user,
            "password": address.password,
            "socket_timeout": None,
            "socket_keepalive": True,
            "client_name": "lexora",
            "lib_name": None,
            "lib_version": None,
        }
        connection: AbstractConnection
        if address.tls:
            secured = SSLConnection(ssl_check_hostname=True, **settings)
            try:
                secured.ssl_context.context = self._tls.current()
            except OSError as error:
                raise StateUnavailable(f"a file of state.tls cannot be used: {error.strerror or 'not PEM'}") from error
            connection = secured
        else:
            connection = Connection(**settings)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # as the library has it
        except BaseException:
            await _abandon(connection)
            raise
        return connection

    async def _resolved(self, host: str, port: int) -> None:
        """Ask the resolver first, once for all attempts: one that hangs holds one thread."""
        if self._question is None or self._question.done():
            self._question = asyncio.ensure_future(asyncio.get_running_loop().getaddrinfo(host, port))
        try:
            await asyncio.shield(self._question)
        except OSError as error:
            raise StateUnavailable(explained(error)) from error

    async def _listen(self) -> None:
        """Read news; without them an exchange comes with the next tick."""
        while True:
            connection = None
            try:
                assert self._where is not None
                connection = await self._to(self._where)
                await connection.send_command("SUBSCRIBE", f"{self._base}news")
                while True:
                    kind, _, text = await connection.read_response(disable_decoding=True)
                    if kind == b"message":
                        member, *programs = text.decode("utf-8", "replace").split(" ")
                        for program in programs:
                            self._heard(program, member)
            except (ValkeyError, StateUnavailable, OSError) as error:
                _log.debug("state_news_lost", reason=str(error))
            finally:
                if connection is not None:
                    await _abandon(connection)
            await asyncio.sleep(NEWS_PAUSE_SECONDS)

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await _abandon(connection)

    async def _sensible(self, work: Awaitable[Any]) -> Any:
        """What the server answers; raises StateUnavailable with a reason for operators, _Absent for a function that is lost."""
        try:
            return await work
        except (ValkeyError, OSError) as error:
            if isinstance(error, NoScriptError) or (isinstance(error, ResponseError) and str(error) == "Function not found"):
                raise _Absent(str(error)) from error
            raise StateUnavailable(explained(error)) from error


def _answer(found: object, asked: int) -> Answer:
    """What the function gave for so many requests. Raises StateUnavailable for what it cannot have given."""
    match found:
        case [int(number), int(), *_] if number == _LATE:
            raise StateUnavailable("an exchange came behind a later one")
        case [0, int(members)] if members >= 0:
            return Answer(known=False, members=members)
        case [1, int(members), *answers] if members > 0:
            packed = tuple(each for each in answers if isinstance(each, bytes))
            if len(packed) == len(answers) == asked:
                return Answer(True, members, packed)
    raise StateUnavailable("the store answers nonsense")


class _Absent(StateUnavailable):
    """The server has lost the function."""


async def _command(connection: AbstractConnection, *parts: bytes) -> Any:
    await connection.send_command(*parts)
    return await connection.read_response(disable_decoding=True)


async def _abandon(connection: AbstractConnection) -> None:
    """Close without waiting for the other side."""
    await connection.disconnect(nowait=True)
