"""Bytes that are no message of the contract: refused like any malformed call, counted and limited, without a traceback."""

import asyncio
import logging
from collections.abc import Iterator

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_reflection.v1alpha import reflection_pb2

from lexora.v1 import router_pb2, stats_pb2
from lexora_contract.port import CallContext
from lexora_contract.rpcs import ROUTER, RPCS
from lexora_router.edge.grpc_reading import Parted
from lexora_router.edge.grpc_servicer import Servicer
from lexora_router.process.app import RouterApp
from tests.contract.conftest import config_of
from tests.contract.test_vanished_client import VanishedContext
from tests.support.links import Outcome, channel, running, status_in
from tests.support.loop_engine import LoopEngine

CORRUPT = b"\xff\xff\xff"
NOT_UTF8 = b"\x0a\x06\x12\x04\x0a\x02\xff\xfe"  # GenerateRequest.call.chat.model
COUNTED = ("Generate", "Stream", "Embed", "Classify", "ReportRefusal")
QUESTIONS = ("ListModels", "GetModel", "Health", "GetStats", "Explain", "ListRecentCalls", "Reload")
PATHS = {rpc.name: rpc.path for rpc in RPCS.values()}


@pytest.fixture
def no_complaint(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert "Traceback" not in capsys.readouterr().out


async def refusal(address: str, rpc: str, data: bytes) -> grpc.aio.AioRpcError:
    """How the server refuses these bytes; a client that awaits one answer takes a stream's error as well."""
    async with channel(address) as wire:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await wire.unary_unary(rpc, None, None)(data, timeout=5)
    return refused.value


@pytest.mark.usefixtures("no_complaint")
@pytest.mark.parametrize(("rpc", "data"), [*((rpc, CORRUPT) for rpc in (*COUNTED, *QUESTIONS)), ("Generate", NOT_UTF8)])
async def test_an_undecodable_request(router: tuple[RouterApp, str], rpc: str, data: bytes) -> None:
    app, address = router
    error = await refusal(address, PATHS[rpc], data)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert PATHS[rpc] in (error.details() or "")
    outcome = Outcome(status=status_in(error))
    assert outcome.reason == "INVALID_REQUEST"
    assert len(outcome.detail(ErrorInfo).metadata["request_id"]) == 32
    stats = await app.services.admin.get_stats(stats_pb2.GetStatsRequest(), CallContext())
    assert stats.calls.total == stats.calls.failed == (1 if rpc in COUNTED else 0)


@pytest.mark.usefixtures("no_complaint")
@pytest.mark.parametrize("rpc", ["/grpc.health.v1.Health/Check", "/grpc.channelz.v1.Channelz/GetServers"])
async def test_an_undecodable_request_of_another_service(router: tuple[RouterApp, str], rpc: str) -> None:
    error = await refusal(router[1], rpc, CORRUPT)
    assert (error.code(), rpc in (error.details() or "")) == (grpc.StatusCode.INVALID_ARGUMENT, True)


@pytest.mark.usefixtures("no_complaint")
async def test_an_undecodable_message_in_a_stream_of_requests(router: tuple[RouterApp, str]) -> None:
    async with channel(router[1]) as wire:
        call = wire.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )(timeout=5)
        await call.write(CORRUPT)
        await call.done_writing()
        answer = await call.read()
    assert answer.error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


@pytest.mark.usefixtures("no_complaint")
async def test_undecodable_requests_are_limited(engine: LoopEngine) -> None:
    limits = {"enabled": True, "default_rate": 0.001, "default_burst": 2}
    async with running(config_of(engine.url, rate_limit=limits)) as (_, address):
        codes = [(await refusal(address, f"/{ROUTER}/Generate", CORRUPT)).code() for _ in range(3)]
    assert codes == [grpc.StatusCode.INVALID_ARGUMENT] * 2 + [grpc.StatusCode.RESOURCE_EXHAUSTED]


class RefusedAndGone(VanishedContext):
    """A context whose client leaves while its refusal is sent."""

    async def abort(self, code: object, details: str) -> None:
        raise grpc.aio.InternalError("the batch failed")


@pytest.mark.parametrize("request_type", [router_pb2.GenerateRequest, router_pb2.StreamRequest])
async def test_a_client_that_leaves_while_it_is_refused(router: tuple[RouterApp, str], request_type: type) -> None:
    """It ends as a cancellation; grpc would log a traceback for any other exception."""
    rpc = request_type.__name__.removesuffix("Request")
    serve = Servicer(router[0].services, 60.0).serving(RPCS[PATHS[rpc]])
    with pytest.raises(asyncio.CancelledError):
        await serve(Parted(request_type()), RefusedAndGone())


@pytest.mark.parametrize("rpc", ["Generate", "Stream"])
async def test_no_message_is_an_empty_one(router: tuple[RouterApp, str], rpc: str) -> None:
    """As a stream of requests that ends at once has none; on the wire it is the same as a unary call."""
    async with grpc.aio.insecure_channel(router[1]) as channel:
        call = channel.stream_unary(PATHS[rpc], lambda data: data, lambda data: data)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(iter(()))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
