import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from google.rpc.error_details_pb2 import ErrorInfo
from tests.unit.gateway.support import BODY, CHAT, JSON, client, connected, failure, make_app, post, serving

from lexora.v1.admin_pb2_grpc import AdminServiceServicer, add_AdminServiceServicer_to_server
from lexora.v1.call_pb2 import Call
from lexora.v1.classify_pb2 import ClassifyRequest
from lexora.v1.errors_pb2 import UpstreamError
from lexora.v1.health_pb2 import HealthRequest, HealthResponse
from lexora.v1.models_pb2 import ListModelsRequest, ListModelsResponse, Model
from lexora.v1.raw_pb2 import RawCall, RawReply
from lexora.v1.router_pb2 import GenerateRequest, GenerateResponse, StreamRequest, StreamResponse
from lexora.v1.router_pb2_grpc import RouterServiceServicer, add_RouterServiceServicer_to_server
from lexora.v1.stats_pb2 import GetStatsRequest, GetStatsResponse
from lexora_contract.answer import EngineError
from lexora_contract.channel import ChannelRouter
from lexora_contract.port import CallContext, CallFailed
from lexora_contract.rpcs import CLASSIFY, GENERATE, GET_STATS, HEALTH, LIST_MODELS
from lexora_contract.status import status_of
from lexora_gateway import log_router

MIB = 1024 * 1024
CONTEXT = CallContext()
REQUEST = GenerateRequest(call=Call(raw=RawCall(path=CHAT, body=b"{}")))
STREAM = StreamRequest(call=Call(raw=RawCall(path=CHAT, body=b"{}")))


class Servicer(RouterServiceServicer, AdminServiceServicer):
    """Ends calls as the test says."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: dict[str, Any] = {}
        self.remaining: float | None = None
        self.status: CallFailed | None = None
        self.bare: grpc.StatusCode | None = None
        self.details = b""
        self.hang = False
        self.reply = GenerateResponse()
        self.waiting = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def Generate(self, request: Any, context: Any) -> Any:
        await self._script(request, context)
        return self.reply

    async def Stream(self, request: Any, context: Any) -> Any:
        for number in range(3):
            yield StreamResponse(delta={"frames": b"%d" % number})
        await self._script(request, context)

    async def Embed(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no")

    async def Classify(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no")

    async def ListModels(self, request: Any, context: Any) -> Any:
        return ListModelsResponse(models=[Model(id="m")])

    async def Health(self, request: Any, context: Any) -> Any:
        return HealthResponse(version="v")

    async def GetStats(self, request: Any, context: Any) -> Any:
        return GetStatsResponse(active_calls=3)

    async def _script(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        self.remaining = context.time_remaining()
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
            details = (("grpc-status-details-bin", self.details or status.SerializeToString()),)
            await context.abort(code, status.message, details)


@contextlib.asynccontextmanager
async def wired(servicer: Servicer, address: str = "127.0.0.1:0", **options: Any) -> AsyncIterator[ChannelRouter]:
    limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.aio.server(options=[*limits, ("grpc.max_metadata_size", 2 * MIB)])
    add_RouterServiceServicer_to_server(servicer, server)
    add_AdminServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(address)
    await server.start()
    settings: dict[str, Any] = {"max_send_bytes": 8 * MIB} | options
    router = ChannelRouter(address if address.startswith("unix:") else f"127.0.0.1:{port}", **settings)
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


async def test_every_rpc_goes_through() -> None:
    servicer = Servicer()
    servicer.reply = GenerateResponse(raw=RawReply(body=b"answer"))
    async with wired(servicer) as router:
        assert (await router.unary(GENERATE, REQUEST, CONTEXT)).raw.body == b"answer"
        assert await collect(router) == [b"0", b"1", b"2"]
        assert (await router.unary(LIST_MODELS, ListModelsRequest(), CONTEXT)).models[0].id == "m"
        assert (await router.unary(HEALTH, HealthRequest(), CONTEXT)).version == "v"
        assert (await router.unary(GET_STATS, GetStatsRequest(), CONTEXT)).active_calls == 3
        with pytest.raises(CallFailed) as raised:
            await router.unary(CLASSIFY, ClassifyRequest(), CONTEXT)
    assert raised.value.code == grpc.StatusCode.UNIMPLEMENTED.value[0]
    assert servicer.requests == [REQUEST, STREAM]


async def test_a_unix_socket_is_a_target_too(tmp_path: Path) -> None:
    async with wired(Servicer(), f"unix:{tmp_path}/router.sock") as router:
        assert (await router.unary(HEALTH, HealthRequest(), CONTEXT)).version == "v"


async def test_metadata_and_deadline_go_along() -> None:
    servicer = Servicer()
    async with wired(servicer) as router:
        await router.unary(GENERATE, REQUEST, CallContext((("traceparent", "00-1"),), 30.0))
        assert servicer.metadata["traceparent"] == "00-1"
        assert servicer.metadata["x-lexora-error-bytes"] == "1048576"
        assert servicer.remaining is not None
        assert 29 < servicer.remaining <= 31  # gRPC rounds the time up on the wire
        await router.unary(GENERATE, REQUEST, CONTEXT)
        assert servicer.remaining is None


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_status_comes_back_with_its_details(streamed: bool) -> None:
    servicer = Servicer()
    own = b"x" * MIB
    servicer.status = failure(5, "gone", ErrorInfo(reason="MODEL_NOT_FOUND"), UpstreamError(status=404, body=own))
    async with wired(servicer) as router:
        with pytest.raises(CallFailed) as raised:
            await (collect(router) if streamed else router.unary(GENERATE, REQUEST, CONTEXT))
    assert (raised.value.reason, raised.value.message, raised.value.code) == ("MODEL_NOT_FOUND", "gone", 5)
    assert raised.value.engine == EngineError(404, "", own)


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


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_deadline_that_passes(streamed: bool) -> None:
    servicer = Servicer()
    servicer.hang = True
    context = CallContext(timeout=0.5)  # long enough for the call to arrive on a busy machine
    async with wired(servicer) as router:
        with pytest.raises(CallFailed) as raised:
            await (collect(router, context) if streamed else router.unary(GENERATE, REQUEST, context))
        assert raised.value.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
        await asyncio.wait_for(servicer.cancelled.wait(), 20)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_cancelled_task_cancels_the_call(streamed: bool) -> None:
    servicer = Servicer()
    servicer.hang = True
    async with wired(servicer) as router:
        work: Any = collect(router) if streamed else router.unary(GENERATE, REQUEST, CONTEXT)
        task = asyncio.ensure_future(work)
        await servicer.waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(servicer.cancelled.wait(), 20)


async def test_an_emit_that_fails_cancels_the_call() -> None:
    servicer = Servicer()
    servicer.hang = True

    async def emit(message: StreamResponse) -> None:
        if message.delta.frames == b"2":
            await servicer.waiting.wait()
            raise KeyError

    async with wired(servicer) as router:
        with pytest.raises(KeyError):
            await router.stream(STREAM, CONTEXT, emit)
        await asyncio.wait_for(servicer.cancelled.wait(), 20)


async def test_large_bodies_pass_both_ways() -> None:
    servicer = Servicer()
    body = b"x" * (6 * MIB)
    servicer.reply = GenerateResponse(raw=RawReply(body=body))
    async with wired(servicer) as router:
        response = await router.unary(GENERATE, GenerateRequest(call=Call(raw=RawCall(body=body))), CONTEXT)
    assert response.raw.body == body
    assert servicer.requests[0].call.raw.body == body


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
