"""An HTTP/1.1 connection of the facade: what the event loop and the server ask of it, and the parts that do the work."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import structlog

from lexora_gateway.errors import plain, too_many_connections
from lexora_gateway.http.asgi import inet
from lexora_gateway.http.closing import Closing
from lexora_gateway.http.connections import MAX_LINGERING
from lexora_gateway.http.request_reader import RequestReader
from lexora_gateway.http.turns import Turns
from lexora_gateway.http.unread import has_unread

if TYPE_CHECKING:
    from uvicorn.server import ServerState

    from lexora_gateway.errors import Failure
    from lexora_gateway.http.exchange import Exchange
    from lexora_gateway.http.site import Site

_log = structlog.get_logger("lexora_gateway")

# Requests of a connection that wait for the answers before theirs; with more of them nothing is read any more.
MAX_PIPELINED = 8
# A connection that is too old, and busy, is looked at as often.
_RETIRE_SECONDS = 1.0


class HttpProtocol(asyncio.Protocol):
    """One connection. A route of the site is served by itself, below ASGI; all else by the site's ASGI application.

    Request heads over 64 KiB are refused with 431, as are trailers and chunk extensions. A head that takes longer than
    `patience.head` is answered 408. A connection to which nothing could be written for `patience.write` is cut off, which
    its call sees as a client that left. Offers of an upgrade are ignored. What cannot be parsed is refused in its turn, after
    the answers to what came before it.

    The server asks for `shutdown`, has every connection in `state.connections` and every task in `state.tasks`.
    """

    __slots__ = (
        "_aged",
        "_closing",
        "_is_idle",
        "_over",
        "_reader",
        "_reads",
        "_site",
        "_state",
        "_turns",
        "address",
        "certificate",
        "loop",
        "takes",
        "transport",
    )

    def __init__(self, site: Site, state: ServerState) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.address = ""
        self.certificate: tuple[str, ...] = ()  # the names in that of the client, once verified
        self.takes = True  # what is written to it
        self._site = site
        self._state = state
        self._is_idle = True
        self._reads = True
        self._aged: asyncio.TimerHandle | None = None
        self._over = ""  # the bound that this connection met
        self._reader = RequestReader(self, site)
        self._closing = Closing(self, site.patience.write)
        self._turns = Turns(self, site, state, self._reader, self._closing)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a server's are transports
        """A new connection; its first byte is waited for as long as a next request's."""
        self.transport = transport
        self._state.connections.add(self)  # type: ignore[arg-type]  # a set of uvicorn's own
        peer = inet(transport, "peername")
        self.address = peer[0] if peer else ""
        self._over = self._site.connections.admit(self, self.address)
        self._site.watch_idle(self.loop)
        if self._site.max_age is not None:
            self._aged = self.loop.call_later(self._site.max_age * random.uniform(0.9, 1.1), self._retire)  # noqa: S311
        if self._over:
            self._turn_away(too_many_connections(self._over))

    def data_received(self, data: bytes) -> None:
        """Read on, unless nothing that comes can be a request."""
        if self._closing.lingers:
            self._closing.throw_away(len(data))
            return
        if self._turns.refusal is not None:
            # Nothing after it can be a request. Reading goes on, or the client's leaving would not be seen.
            return
        if self._is_idle:
            self._is_idle = False
            self._site.connections.busy(self)
        failure = self._reader.feed(data)
        if failure is not None:
            self._turns.refuse(failure)

    def eof_received(self) -> bool:
        """The client sends no more; True keeps the connection for what it may still read.

        Most clients close both ways at once, which looks the same. So no engine works on for it; what is only read is answered.
        """
        if not self._turns.only_reads or self.transport.get_extra_info("ssl_object") is not None:
            return False
        self.shutdown()
        return True

    def pause_writing(self) -> None:
        """The client does not take what is written to it."""
        self.takes = False
        self._turns.pause()
        self._closing.stalls()

    def resume_writing(self) -> None:
        """The client takes it again."""
        self.takes = True
        self._closing.goes_on()
        self._turns.resume()

    def connection_lost(self, _: Exception | None) -> None:
        """The end of the connection."""
        self._state.connections.discard(self)
        self._site.connections.forget(self)
        self._site.connections.lingering -= bool(self._over)
        if self._aged is not None:
            self._aged.cancel()
        self._closing.stop()
        self._turns.lose()
        self._reader.stop()
        # They have this protocol, and this protocol has them.
        del self._closing, self._reader, self._turns

    # What the server and its bounds call.

    def shutdown(self) -> None:
        """The server stops: an idle connection is closed, a response under way is the last one."""
        last = self._turns.last
        if last is None:
            self._closing.close()
        else:
            last.keep_alive = False

    def drain(self) -> None:
        """The process is going to stop: no request is served here after those that have come, and none that is not whole."""
        last = self._turns.last
        if last is not None:
            last.keep_alive = last.keep_alive and last.started  # of an answer that has begun without a word about it
            self._turns.refuse_upload()
        elif self._is_idle:
            self._closing.close()

    def _retire(self) -> None:
        """It is as old as may be: the next answer that begins is the last one."""
        last = self._turns.last
        if self._is_idle:
            self._aged = None
            self._closing.close()
            return
        if last is not None and not last.started:
            last.keep_alive = False
        self._aged = self.loop.call_later(_RETIRE_SECONDS, self._retire)

    def close_idle(self) -> bool:
        """No next request came in time, or room is made for another connection; nothing is under way on this one."""
        if has_unread(self.transport):
            return False
        self._closing.close()
        return True

    def _turn_away(self, failure: Failure) -> None:
        """Refuse a connection before its first request."""
        connections = self._site.connections
        connections.lingering += 1
        if (times := connections.unlogged(self.loop.time())) > 0:
            _log.warning("connections_refused", bound=self._over, client=self.address or None, times=times)
        if connections.lingering > MAX_LINGERING:
            self.transport.abort()
        else:
            self._turns.refuse_all(failure)

    # What its parts call.

    def first_lines(self, status: int) -> bytes:
        """The first lines of a response."""
        return self._site.first_lines(status, self._state.default_headers)

    def take(self, exchange: Exchange) -> None:
        """A request's head is here."""
        self._turns.take(exchange)

    def answered(self, exchange: Exchange) -> None:
        """The last byte of an answer is written."""
        self._turns.answered(exchange)

    def idle(self) -> None:
        """Nothing is under way on it."""
        self._is_idle = True
        self._site.connections.idle(self)
        if self._site.connections.draining:
            self._closing.close()

    def read_on(self) -> None:
        """Read as long as there is room for what comes: for requests, and for the rest of the last one's body."""
        received = self._reader.received
        ahead = received is not None and received.is_ahead
        reads = self._closing.lingers or not (ahead or len(self._turns.waiting) >= MAX_PIPELINED)
        if reads is not self._reads and not self.transport.is_closing():
            self._reads = reads
            if reads:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def head_is_late(self) -> None:
        """A head, or what came instead of one, is not complete in its time."""
        if self._closing.lingers:
            return
        if self._turns.last is not None:
            # A head that was sent ahead of the answer before it: its time starts with the end of that one.
            self._reader.expect_more()
        elif self._reader.in_head:
            seconds = self._site.patience.head
            self._turns.refuse(plain(408, f"The request head was not complete after {seconds:g} seconds."))
        else:
            # Newlines between requests, or the rest of a body that is not wanted.
            self._closing.close()
