import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import structlog
from tests.unit.gateway.support import BODY, CHAT, JSON, client, connected, failure, make_app, post, serving

from lexora.v1.call_pb2 import Call
from lexora.v1.raw_pb2 import RawCall
from lexora.v1.router_pb2 import GenerateRequest, GenerateResponse, StreamRequest, StreamResponse
from lexora.v1.router_pb2_grpc import RouterServiceServicer, add_RouterServiceServicer_to_server
from lexora_contract.channel import ChannelRouter
from lexora_contract.port import CallContext, CallFailed
from lexora_contract.rpcs import GENERATE
from lexora_contract.status import status_of
from lexora_gateway import log_router

MIB = 1024 * 1024
CONTEXT = CallContext()
REQUEST = GenerateRequest(call=Call(raw=RawCall(path=CHAT, body=b"{}")))
STREAM = StreamRequest(call=Call(raw=RawCall(path=CHAT, body=b"{}")))


class Servicer(RouterServiceServicer):
    """Ends calls as the test says."""

    def __init__(self) -> None:
        self.status: CallFailed | None = None
        self.bare: grpc.StatusCode | None = None
        self.details = b""
        self.hang = False
        self.waiting = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def Generate(self, request: Any, context: Any) -> Any:
        await self._script(context)
        return GenerateResponse()

    async def Stream(self, request: Any, context: Any) -> Any:
        yield StreamResponse(delta={"frames": b"0"})
        await self._script(context)

    async def _script(self, context: Any) -> None:
        if self.hang:
            self.waiting.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if self.bare is not None:
            await context.abort(self.bare, "bare")
        if self.status is not None:
            status = status_of(self.status, max_body=MIB)
            code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
            await context.abort(code, status.message, (("grpc-status-details-bin", self.details),))


@contextlib.asynccontextmanager
async def wired(servicer: Servicer) -> AsyncIterator[ChannelRouter]:
    server = grpc.aio.server()
    add_RouterServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    router = ChannelRouter(f"127.0.0.1:{port}", max_send_bytes=MIB)
    try:
        yield router
    finally:
        await router.close()
        await server.stop(None)


async def collect(router: ChannelRouter, context: CallContext = CONTEXT) -> list[bytes]:
    got: list[bytes] = []

    async def emit(message: StreamResponse) -> None:
        got.append(message.delta.frames)

    await router.stream(STREAM, context, emit)
    return got


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED])
async def test_a_bare_status_keeps_code_and_message(streamed: bool, code: grpc.StatusCode) -> None:
    servicer = Servicer()
    servicer.bare = code
    async with wired(servicer) as router:
        with pytest.raises(CallFailed) as raised:
            await (collect(router) if streamed else router.unary(GENERATE, REQUEST, CONTEXT))
    failed = raised.value
    assert (failed.code, failed.message, failed.receipt) == (code.value[0], "bare", None)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_unreadable_details_leave_code_and_message() -> None:
    servicer = Servicer()
    servicer.status = failure(5, "gone")
    servicer.details = b"\xff\xff"
    async with wired(servicer) as router:
        with pytest.raises(CallFailed) as raised:
            await router.unary(GENERATE, REQUEST, CONTEXT)
    assert (raised.value.code, raised.value.message) == (5, "gone")


async def test_a_dead_router_is_a_503_that_says_so() -> None:
    router = ChannelRouter("127.0.0.1:1", max_send_bytes=MIB, log=log_router)
    app = make_app(router)
    try:
        with structlog.testing.capture_logs() as logs:
            async with client(app) as http:
                response = await http.post(CHAT, content=BODY, headers=JSON)
                health = await http.get("/health")
    finally:
        await router.close()
    assert response.status_code == 503
    assert response.json()["error"]["message"] == "The gateway cannot reach its router; try again shortly."
    assert response.headers["retry-after"] == "1"
    assert health.status_code == 503
    assert logs[0]["event"] == "router_unreachable"


async def test_a_client_that_leaves_the_facade_cancels_the_call_at_the_router() -> None:
    servicer = Servicer()
    servicer.hang = True
    async with wired(servicer) as router, serving(make_app(router)) as port:
        async with connected(port) as (_, writer):
            writer.write(post(CHAT, BODY))
            await servicer.waiting.wait()
        await asyncio.wait_for(servicer.cancelled.wait(), 0.5)
