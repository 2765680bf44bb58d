"""A scripted router, statuses with details, and the facade on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from lexora.v1.classify_pb2 import ClassifyRequest, ClassifyResponse
from lexora.v1.explain_pb2 import ExplainRequest, ExplainResponse
from lexora.v1.health_pb2 import HealthRequest, HealthResponse
from lexora.v1.models_pb2 import ListModelsRequest, ListModelsResponse
from lexora.v1.raw_pb2 import RawHead, RawReply
from lexora.v1.receipt_pb2 import Receipt
from lexora.v1.recent_pb2 import RecentCallsRequest, RecentCallsResponse
from lexora.v1.router_pb2 import GenerateRequest, GenerateResponse, StreamRequest, StreamResponse
from lexora.v1.stats_pb2 import GetStatsRequest, GetStatsResponse
from lexora_gateway import (
    CallContext,
    Emit,
    GatewayServer,
    Patience,
    RouterPort,
    RouterStatusError,
    create_app,
    server_config,
)

T = TypeVar("T")
Script = Callable[..., Awaitable[Any]]
RECEIPT = Receipt(backend="main", attempts=2)
HEAD = RawHead(status=200, content_type="text/event-stream; charset=utf-8")
CHAT = "/v1/chat/completions"
BODY = b'{"model": "m", "messages": []}'
STREAMED = b'{"model": "m", "stream": true}'
JSON = {"content-type": "application/json"}


class ScriptedRouter:
    """Does what the test says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any, CallContext]] = []
        self.counted: list[GenerateRequest] = []  # without an input: what the facade refused by itself
        self.told = ""  # why, in the words of the last of them
        self.refusal = failure(3, "One of chat, completion and openai must be set.", ErrorInfo(reason="INVALID_REQUEST"))
        self.foreseen: Exception | None = None
        self.cancelled = asyncio.Event()
        self.waiting = asyncio.Event()
        self.active = 0
        self.generates: Script = typed
        self.streams: Script = whole(b"{}")
        self.classified: ClassifyResponse | Exception = ClassifyResponse()
        self.models: ListModelsResponse | Exception = ListModelsResponse()
        self.state: HealthResponse | Exception = HealthResponse()
        self.counters: GetStatsResponse | Exception = GetStatsResponse()
        self.explanation: ExplainResponse | Exception = ExplainResponse()
        self.recent: RecentCallsResponse | Exception = RecentCallsResponse()

    def foresee(self, user: str, size: int) -> None:
        if self.foreseen is not None:
            raise self.foreseen

    async def generate(self, request: GenerateRequest, context: CallContext) -> GenerateResponse:
        if request.call.WhichOneof("input") is None:
            self.counted.append(request)
            self.told = dict(context.metadata)["x-lexora-refused"]
            raise self.refusal
        _put_together(request, context)
        self.asked.append(("generate", request, context))
        result = await self._watched(self.generates(self))
        assert isinstance(result, GenerateResponse)
        return result

    async def stream(self, request: StreamRequest, context: CallContext, emit: Emit) -> None:
        _put_together(request, context)
        self.asked.append(("stream", request, context))
        await self._watched(self.streams(self, emit))

    async def classify(self, request: ClassifyRequest, context: CallContext) -> ClassifyResponse:
        return self._told("classify", request, context, self.classified)

    async def list_models(self, request: ListModelsRequest, context: CallContext) -> ListModelsResponse:
        return self._told("list_models", request, context, self.models)

    async def health(self, request: HealthRequest, context: CallContext) -> HealthResponse:
        return self._told("health", request, context, self.state)

    async def get_stats(self, request: GetStatsRequest, context: CallContext) -> GetStatsResponse:
        return self._told("get_stats", request, context, self.counters)

    async def explain(self, request: ExplainRequest, context: CallContext) -> ExplainResponse:
        _put_together(request, context)
        return self._told("explain", request, context, self.explanation)

    async def recent_calls(self, request: RecentCallsRequest, context: CallContext) -> RecentCallsResponse:
        return self._told("recent_calls", request, context, self.recent)

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

    def _told(self, name: str, request: Any, context: CallContext, answer: T | Exception) -> T:
        self.asked.append((name, request, context))
        if isinstance(answer, Exception):
            raise answer
        return answer


def _put_together(request: GenerateRequest | StreamRequest | ExplainRequest, context: CallContext) -> None:
    if body := context.take_body():
        request.call.raw.body = body


async def typed(_: ScriptedRouter) -> GenerateResponse:
    return GenerateResponse(receipt=RECEIPT)


def whole(body: bytes, status: int = 200, content_type: str = "application/json", **more: Any) -> Script:
    async def script(_: ScriptedRouter, emit: Emit) -> None:
        head = RawHead(status=status, content_type=content_type, **more)
        await emit(StreamResponse(receipt=RECEIPT, reply=RawReply(head=head, body=body)))

    return script


def frames(*pieces: bytes, then: Exception | None = None) -> Script:
    async def script(_: ScriptedRouter, emit: Emit) -> None:
        for index, piece in enumerate(pieces):
            if index == 0:
                await emit(StreamResponse(receipt=RECEIPT, head=HEAD, frames=piece))
            else:
                await emit(StreamResponse(frames=piece))
        if then is not None:
            raise then

    return script


def failing(error: Exception) -> Script:
    async def script(*_: Any) -> Any:
        raise error

    return script


async def hanging(router: ScriptedRouter, *_: Any) -> Any:
    await router.hang()


def failure(code: int, message: str = "no", *details: Any) -> RouterStatusError:
    status = Status(code=code, message=message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return RouterStatusError(status)


def make_app(router: RouterPort, **options: Any) -> FastAPI:
    settings: dict[str, Any] = {
        "version": "1.2.3",
        "max_body_bytes": 1000,
        "metrics": lambda _: (b"up 1\n", "text/plain; version=0.0.4"),
    }
    return create_app(router, **(settings | options))


def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")


@contextlib.asynccontextmanager
async def serving(app: FastAPI, patience: Patience | None = None) -> AsyncIterator[int]:
    """The facade on a free loopback port, as it is run for real."""
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
    server = GatewayServer(config, addresses.append)
    task = asyncio.create_task(server.serve())
    await until(lambda: bool(addresses))
    try:
        yield server
    finally:
        server.should_exit = True
        await task


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
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
