"""HTTPS: the handshake of a new connection, before its first request.

The first byte decides: a TLS record begins with 0x16, and HTTP in the clear gets an answer that it can read. Until the
handshake is over a connection is an idle one, so it makes room for others, and it has `handshake` seconds in all.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from lexora_contract.access import certificate_names
from lexora_contract.request_ids import new_request_id
from lexora_gateway.errors import plain
from lexora_gateway.http.asgi import inet
from lexora_gateway.http.protocol import HttpProtocol
from lexora_gateway.http.refusal import rest_of_answer
from lexora_gateway.http.unread import has_unread

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from uvicorn.server import ServerState

    from lexora_gateway.http.site import Site

_HANDSHAKE = 0x16  # the content type of the first record (RFC 8446, 5.1)
_CLEAR_SECONDS = 2.0  # to read why nothing is served in the clear
# A client that does not answer the end of its connection (close_notify) holds it for so long.
_END_SECONDS = 5.0
_BUFFER = memoryview(bytearray(64 * 1024))
_CLEAR = "This port speaks HTTPS: the address must begin with https://."


@dataclass(slots=True)
class Tls:
    """How connections are secured. `context` gives what is in force for the next one; `handshake` is in seconds.

    `failed` counts handshakes that came to nothing, by what was wrong.
    """

    context: Callable[[], ssl.SSLContext]
    handshake: float
    failed: dict[str, int] = field(default_factory=lambda: {"plain_http": 0, "timeout": 0, "handshake": 0})


class Handshake(asyncio.Protocol):
    """A new connection until it is secured; then an HttpProtocol has its transport."""

    __slots__ = ("_address", "_first", "_is_lost", "_loop", "_site", "_state", "_task", "_timer", "_tls", "_transport")

    def __init__(self, site: Site, state: ServerState, tls: Tls) -> None:
        self._site = site
        self._state = state
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._first = b""
        self._is_lost = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a server's are transports
        """A new connection; it counts from now on."""
        self._transport = transport
        self._state.connections.add(self)  # type: ignore[arg-type]  # a set of uvicorn's own
        peer = inet(transport, "peername")
        if self._site.connections.admit(self, peer[0] if peer else ""):
            transport.abort()  # to say why would take a handshake
            return
        self._site.watch_idle(self._loop)
        self._timer = self._loop.call_later(self._tls.handshake, self._is_late)

    def data_received(self, data: bytes) -> None:
        """The first bytes."""
        if self._first:
            return
        self._first = data
        if data[0] == _HANDSHAKE:
            self._transport.pause_reading()
            self._task = self._loop.create_task(self._secure())
            # Between the two the loop has given the transport to TLS, and has not read on.
            self._loop.call_soon(self._loop.call_soon, self._give_first)
        else:
            self._answer_in_the_clear()

    def connection_lost(self, _: Exception | None) -> None:
        """The connection ended before it was secured."""
        self._is_lost = True
        self._leave()

    # What the server and its bounds call.

    def shutdown(self) -> None:
        """The server stops."""
        self._transport.abort()

    def drain(self) -> None:
        """The process is going to stop: the first request, once it is here, is the last one."""

    def close_idle(self) -> bool:
        """Room is made for another connection."""
        if has_unread(self._transport):
            return False
        self._transport.abort()
        return True

    # The handshake.

    async def _secure(self) -> None:
        tls = self._tls
        try:
            secured = await self._loop.start_tls(
                self._transport,
                self,
                tls.context(),
                server_side=True,
                ssl_handshake_timeout=tls.handshake,
                ssl_shutdown_timeout=_END_SECONDS,
            )
        except (OSError, asyncio.CancelledError):  # SSLError too; the library has cut the connection
            if self._timer is not None:
                tls.failed["handshake"] += 1
            self._leave()
            return
        self._leave()
        if self._is_lost or secured is None or secured.is_closing():
            return
        protocol = HttpProtocol(self._site, self._state)
        protocol.certificate = _names(secured)
        secured.set_protocol(_Plain(protocol))
        protocol.connection_made(secured)

    def _give_first(self) -> None:
        """What was read before TLS had the transport is the begin of the handshake."""
        reader = self._transport.get_protocol()
        if reader is self:
            return  # the connection has ended meanwhile
        reader = cast("asyncio.BufferedProtocol", reader)
        left = memoryview(self._first)
        while left:
            buffer = memoryview(reader.get_buffer(len(left)))
            count = min(len(buffer), len(left))
            buffer[:count] = left[:count]
            reader.buffer_updated(count)
            left = left[count:]

    def _is_late(self) -> None:
        self._timer = None
        self._tls.failed["timeout"] += 1
        self._transport.abort()

    def _answer_in_the_clear(self) -> None:
        if not self._first[:1].isalpha():
            self._tls.failed["handshake"] += 1
            self._transport.abort()
            return
        self._tls.failed["plain_http"] += 1
        failure = plain(400, _CLEAR)
        lines = self._site.first_lines(failure.status, self._state.default_headers)
        self._transport.write(lines + rest_of_answer(failure, new_request_id(), []))
        self._transport.write_eof()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_CLEAR_SECONDS, self._transport.abort)

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._site.connections.forget(self)
        self._state.connections.discard(self)


class _Plain(asyncio.BufferedProtocol):
    """Reads what is decrypted into one buffer for all connections; the event loop would make one of 256 KiB for each read."""

    __slots__ = ("_protocol", "connection_lost", "pause_writing", "resume_writing")

    def __init__(self, protocol: HttpProtocol) -> None:
        self._protocol = protocol
        self.connection_lost = protocol.connection_lost  # type: ignore[assignment, method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]

    def get_buffer(self, _: int) -> memoryview:
        """Where the next bytes go, until `buffer_updated`, which comes before any other read."""
        return _BUFFER

    def buffer_updated(self, count: int) -> None:
        """So many bytes are there."""
        self._protocol.data_received(bytes(_BUFFER[:count]))


def _names(transport: asyncio.Transport) -> tuple[str, ...]:
    """The names in the client's certificate, which the handshake has verified; none where it has shown none."""
    shown = transport.get_extra_info("peercert") or {}
    found: dict[str, list[str]] = {"DNS": [], "URI": [], "email": []}
    for kind, value in shown.get("subjectAltName", ()):
        if kind in found:
            found[kind].append(value)
    return certificate_names(found["DNS"], found["URI"], found["email"])
