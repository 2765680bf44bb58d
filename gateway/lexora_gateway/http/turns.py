"""The requests of one connection in their turn: each is answered when all before it are (RFC 9112, 9.3.2)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from lexora_contract.operations import dialect_of
from lexora_gateway.errors import in_dialect, shutting_down
from lexora_gateway.http.asgi import AsgiCall
from lexora_gateway.http.refusal import rest_of_answer
from lexora_gateway.request import request_id_of
from lexora_gateway.response import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from uvicorn.server import ServerState

    from lexora_gateway.asgi_types import Headers
    from lexora_gateway.errors import Failure
    from lexora_gateway.http.closing import Closing
    from lexora_gateway.http.exchange import Exchange
    from lexora_gateway.http.request_reader import RequestReader
    from lexora_gateway.http.site import Site

_log = structlog.get_logger("lexora_gateway")

_READS = (b"GET", b"HEAD")


class Answering(Protocol):
    """The connection that is answered on. `takes`: the client takes what is written to it."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    address: str
    takes: bool

    def first_lines(self, status: int) -> bytes:
        """The first lines of a response."""

    def read_on(self) -> None:
        """Read as long as there is room for what comes."""

    def idle(self) -> None:
        """Nothing is under way on it."""


class Turns:
    """Starts each request when it is its turn, and refuses what is no request in its turn, as the last one.

    A client that takes no answers gets no more of them: they would only fill the memory.
    """

    __slots__ = ("_closing", "_connection", "_reader", "_site", "_state", "answering", "refusal", "waiting")

    def __init__(self, connection: Answering, site: Site, state: ServerState, reader: RequestReader, closing: Closing) -> None:
        self._connection = connection
        self._site = site
        self._state = state
        self._reader = reader
        self._closing = closing
        self.answering: Exchange | None = None
        self.waiting: list[Exchange] = []
        # Of what was parsed last, while the answers before it are under way.
        self.refusal: Failure | None = None

    @property
    def last(self) -> Exchange | None:
        """The last one that will be answered, of those that are here."""
        return self.waiting[-1] if self.waiting else self.answering

    @property
    def only_reads(self) -> bool:
        """Whether there are requests under way, all of them whole, and no engine works for any of them."""
        under_way = (self.answering, *self.waiting) if self.answering is not None else self.waiting
        return bool(under_way) and all(exchange.method in _READS and not exchange.more_body for exchange in under_way)

    def take(self, exchange: Exchange) -> None:
        """A request came."""
        if self.answering is None and self._connection.takes:
            self._start(exchange)
        else:
            self.waiting.append(exchange)
            self._connection.read_on()

    def answered(self, exchange: Exchange) -> None:
        """The last byte of an answer is written."""
        self._state.total_requests += 1
        self.answering = None
        self._reader.forget(exchange)
        if self._closing.lingers or self._connection.transport.is_closing():
            return
        if exchange.keep_alive:
            self._next()
            self._reader.restart_head_timer()
            return
        self.waiting.clear()
        if exchange.more_body:
            self._linger()
        else:
            self._closing.close()

    def pause(self) -> None:
        """The client does not take what is written to it."""
        if self.answering is not None:
            self.answering.flow.pause()

    def resume(self) -> None:
        """The client takes it again."""
        if self.answering is not None:
            self.answering.flow.resume()
        elif (self.waiting or self.refusal is not None) and not self._closing.lingers:
            self._next()

    def lose(self) -> None:
        """The connection has ended."""
        if self.answering is not None:
            self.answering.lose()
        self.waiting.clear()
        self.answering = None

    def refuse_upload(self) -> None:
        """Refuse a call whose body is still on its way: it would be refused once it is here."""
        exchange = self.answering
        if exchange is not None and exchange.task is not None and exchange.more_body:
            exchange.refuse(shutting_down())

    # One request.

    def _start(self, exchange: Exchange) -> None:
        self.answering = exchange
        if not self._connection.takes:
            exchange.flow.pause()
        hosts = self._site.hosts
        if hosts is not None and not hosts.serves(exchange):
            self._run(exchange, hosts.refuse, exchange)
            return
        cors = self._site.cors
        if cors is not None:
            if cors.is_preflight(exchange.method, exchange.headers):
                self._run(exchange, cors.preflight, exchange)
                return
            exchange.added = cors.allowed(exchange.headers)
        route = self._site.routes.get(exchange.path) if exchange.method == b"POST" else None
        if route is not None:
            self._run(exchange, route.handle, exchange)
        else:
            exchange.ends_by_leaving = False
            self._run(exchange, AsgiCall(exchange, self._connection.transport).run, self._site.app)

    def _run(self, exchange: Exchange, serve: Callable[[Any], Awaitable[None]], given: Any) -> None:
        exchange.task = self._connection.loop.create_task(self._serve(exchange, serve, given))

    async def _serve(self, exchange: Exchange, serve: Callable[[Any], Awaitable[None]], given: Any) -> None:
        task, tasks = exchange.task, self._state.tasks
        assert task is not None
        tasks.add(task)
        try:
            await serve(given)
        finally:
            tasks.discard(task)
            if exchange.is_open and exchange.started:
                # Cancelled by the server, or its answer broke off: the client must not take it for a whole one.
                exchange.lose()
                self._connection.transport.abort()
            elif exchange.is_open:
                dialect = dialect_of(exchange.path.decode("latin-1"))
                Answer(exchange, request_id_of(exchange.headers), dialect).fail(shutting_down())
            exchange.task = None  # which has this frame, and this frame has the exchange

    def _next(self) -> None:
        connection = self._connection
        if self.waiting:
            if connection.takes:
                self._start(self.waiting.pop(0))
        elif self.refusal is not None:
            self._write_refusal(self.refusal)
            return
        elif not self._reader.in_head:
            connection.idle()
        connection.read_on()

    # Refusals of what is no request.

    def refuse(self, failure: Failure) -> None:
        """Answer what came last with a failure and close, as soon as all that came before it is answered."""
        exchange = self._reader.received
        if exchange is None or not (exchange.is_open or exchange.more_body):
            self._write_refusal(failure)
        elif not exchange.more_body:
            self.refusal = failure
        elif exchange is not self.answering and exchange.is_open:
            self.waiting.pop()
            self._reader.received = self.answering
            self.refusal = failure
        elif exchange.started:
            # A second status would be taken for a part of its answer, or for the next one.
            self._connection.transport.close()
        else:
            exchange.lose()
            self._write_refusal(failure)

    def refuse_all(self, failure: Failure) -> None:
        """Answer with a failure and close, before the first request."""
        self._write_failure(failure, request_id_of({}), {})

    def _write_refusal(self, failure: Failure) -> None:
        received = dict(self._reader.pairs)
        request_id = request_id_of(received)
        path = self._reader.target.partition(b"?")[0].decode("latin-1")
        failure = in_dialect(dialect_of(path), failure, request_id)
        client = self._connection.address or None
        _log.info("request_refused", status=failure.status, reason=failure.message, client=client, request_id=request_id)
        self._write_failure(failure, request_id, received)

    def _write_failure(self, failure: Failure, request_id: str, received: Headers) -> None:
        connection = self._connection
        added = self._site.cors.allowed(received) if self._site.cors is not None else []
        connection.transport.write(connection.first_lines(failure.status) + rest_of_answer(failure, request_id, added))
        self._linger()

    def _linger(self) -> None:
        self._closing.linger()
        self._connection.read_on()
