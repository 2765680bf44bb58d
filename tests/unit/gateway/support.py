"""A scripted router, statuses with details, and the facade on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import httpx
from fastapi import FastAPI
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.status_pb2 import Status
from uvicorn.server import ServerState

from lexora.v1 import principal_pb2, receipt_pb2
from lexora.v1.classify_pb2 import ClassifyResponse
from lexora.v1.explain_pb2 import ExplainResponse
from lexora.v1.health_pb2 import HealthResponse
from lexora.v1.models_pb2 import ListModelsResponse
from lexora.v1.principal_pb2 import GetPrincipalResponse
from lexora.v1.recent_calls_pb2 import ListRecentCallsResponse
from lexora.v1.router_pb2 import (
    GenerateResponse,
    ReportRefusalRequest,
    ReportRefusalResponse,
    StreamRequest,
    StreamResponse,
)
from lexora.v1.stats_pb2 import GetStatsResponse
from lexora_contract.answer import Head, Receipt, Reply
from lexora_contract.port import CallContext, CallFailed, ClientSink, Gate, Options, RawCall, RouterPort, Send
from lexora_contract.rpcs import GENERATE, Request, Response, Rpc
from lexora_contract.status import failed_of
from lexora_gateway import GatewayServer, Patience, server_config
from lexora_gateway.app import create_app

Script = Callable[..., Awaitable[Any]]
RECEIPT = Receipt(backend="main", attempts=2)
TYPED_RECEIPT = receipt_pb2.Receipt(backend="main", attempts=2)
HEAD = Head(200, "text/event-stream; charset=utf-8")
CHAT = "/v1/chat/completions"
BODY = b'{"model": "m", "messages": []}'
STREAMED = b'{"model": "m", "stream": true}'
JSON = {"content-type": "application/json"}


class ScriptedRouter:
    """Does what the test says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any, CallContext]] = []
        self.counted: list[ReportRefusalRequest] = []  # what the facade refused by itself
        self.refusal: receipt_pb2.Receipt | Exception = receipt_pb2.Receipt()
        self.foreseen: Exception | None = None
        self.foresaw: list[tuple[str, Options, CallContext, int]] = []
        self.cancelled = asyncio.Event()
        self.waiting = asyncio.Event()
        self.active = 0
        self.generates: Script = typed
        self.streams: Script = begun
        self.relays: Script = whole(b"{}")
        self.classified: ClassifyResponse | Exception = ClassifyResponse()
        self.models: ListModelsResponse | Exception = ListModelsResponse()
        self.state: HealthResponse | Exception = HealthResponse()
        self.counters: GetStatsResponse | Exception = GetStatsResponse()
        self.explanation: ExplainResponse | Exception = ExplainResponse()
        self.principal: GetPrincipalResponse | Exception = GetPrincipalResponse(
            scopes=[principal_pb2.SCOPE_CALL, principal_pb2.SCOPE_OBSERVE, principal_pb2.SCOPE_ADMIN]
        )
        self.recent: ListRecentCallsResponse | Exception = ListRecentCallsResponse()

    async def foresee(self, rpc: Rpc[Any, Any], options: Options, context: CallContext, size: int) -> str:
        self.foresaw.append((rpc.method, options, context, size))
        if self.foreseen is not None:
            raise self.foreseen
        return ""

    async def unary(self, rpc: Rpc[Request, Response], request: Request, context: CallContext) -> Response:
        if isinstance(request, ReportRefusalRequest):
            self.counted.append(request)
            if isinstance(self.refusal, Exception):
                raise self.refusal
            return cast("Response", ReportRefusalResponse(receipt=self.refusal))
        self.asked.append((rpc.method, _put_together(request, context), context))
        if rpc.path == GENERATE.path:
            return cast("Response", await self._watched(self.generates(self)))
        answer = {
            "classify": self.classified,
            "list_models": self.models,
            "health": self.state,
            "get_stats": self.counters,
            "explain": self.explanation,
            "list_recent_calls": self.recent,
            "get_principal": self.principal,
        }[rpc.method]
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, rpc.response)
        return answer

    async def relay(self, call: RawCall, context: CallContext, sink: ClientSink) -> None:
        self.asked.append(("relay", call, context))
        await self._watched(self.relays(self, Client(sink, context)))

    async def stream(self, request: StreamRequest, context: CallContext, send: Send) -> None:
        self.asked.append(("stream", _put_together(request, context), context))
        await self._watched(self.streams(self, send))

    async def hang(self) -> None:
        """Wait until cancelled."""
        self.waiting.set()
        await asyncio.Event().wait()

    async def _watched(self, work: Awaitable[Any]) -> Any:
        self.active += 1
        try:
            return await work
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.active -= 1


def _put_together(request: Any, context: CallContext) -> Any:
    if body := context.take_body():
        request.call.raw.body = body
    return request


async def begun(_: ScriptedRouter, send: Send) -> None:
    await send(StreamResponse(started={"receipt": TYPED_RECEIPT}))


class Client:
    """The sink of a relayed call, for scripts: `await client.frames(...)` waits while the client is paused."""

    def __init__(self, sink: ClientSink, context: CallContext) -> None:
        self._sink = sink
        self._gate = Gate()
        context.flow.attach(self._gate)

    def accepted(self, receipt: Receipt = RECEIPT, *, streams: bool = True) -> None:
        self._sink.accepted(receipt, streams=streams)

    def reply(self, reply: Reply) -> None:
        self._sink.reply(reply)

    def head(self, head: Head = HEAD) -> None:
        self._sink.head(head)

    async def frames(self, data: bytes) -> None:
        self._sink.frames(data)
        await self._gate.passed()


async def typed(_: ScriptedRouter) -> GenerateResponse:
    return GenerateResponse(receipt=TYPED_RECEIPT)


def whole(
    body: bytes,
    status: int = 200,
    content_type: str = "application/json",
    headers: tuple[tuple[str, str], ...] = (),
    receipt: Receipt = RECEIPT,
) -> Script:
    async def script(_: ScriptedRouter, client: Client) -> None:
        client.accepted(receipt, streams=False)
        client.reply(Reply(Head(status, content_type, headers), body))

    return script


def frames(*pieces: bytes, then: Exception | None = None, head: Head = HEAD, receipt: Receipt = RECEIPT) -> Script:
    async def script(_: ScriptedRouter, client: Client) -> None:
        client.accepted(receipt)
        for index, piece in enumerate(pieces):
            if index == 0:
                client.head(head)
            await client.frames(piece)
        if then is not None:
            raise then

    return script


def failing(error: Exception) -> Script:
    async def script(*_: Any) -> Any:
        raise error

    return script


async def hanging(router: ScriptedRouter, *_: Any) -> Any:
    await router.hang()


def failure(code: int, message: str = "no", *details: Any) -> CallFailed:
    status = Status(code=code, message=message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return failed_of(status)


async def _metrics(_: str) -> tuple[bytes, str]:
    return b"up 1\n", "text/plain; version=0.0.4"


def make_app(router: RouterPort, **options: Any) -> FastAPI:
    settings: dict[str, Any] = {
        "version": "1.2.3",
        "max_body_bytes": 1000,
        "metrics": _metrics,
    }
    return create_app(router, **(settings | options))


# The client's side at which the next facade is asked, "own" or "asgi"; None: `client` by ASGI, `serving` by its own server.
side: str | None = None


@contextlib.asynccontextmanager
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the facade, without a socket or at one of the facade's own connections."""
    if side != "own":
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
            yield http
        return
    make = cast("Any", server_config(app, host="127.0.0.1", port=0).http)
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: make(server_state=state), "127.0.0.1", 0)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as http:
            yield http
    finally:
        server.close()
        await until(lambda: not state.connections)


@contextlib.asynccontextmanager
async def serving(app: FastAPI, patience: Patience | None = None) -> AsyncIterator[int]:
    """The facade on a free loopback port: as it is run for real, or on uvicorn as it is."""
    async with running(app, patience) as server:
        yield port_of(server)


def port_of(server: GatewayServer) -> int:
    """The port of a server that listens on one socket."""
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


@contextlib.asynccontextmanager
async def running(app: FastAPI, patience: Patience | None = None) -> AsyncIterator[GatewayServer]:
    """The server itself."""
    addresses: list[str] = []
    config = server_config(app, host="127.0.0.1", port=0, patience=patience or Patience())
    # A call that was not cancelled must fail its test, not hang it.
    config.timeout_graceful_shutdown = 1
    if side == "asgi":
        config.http = "httptools"
    server = GatewayServer(config, addresses.append)
    task = asyncio.create_task(server.serve())
    await until(lambda: bool(addresses))
    try:
        yield server
    finally:
        server.should_exit = True
        await task


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def post(path: str, body: bytes, *more: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "host: x",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *more,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
