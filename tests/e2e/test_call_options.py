"""What each option of a call does, over HTTP and over gRPC, to a call that real processes serve."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import msgspec
import pytest
from google.protobuf.duration_pb2 import Duration

from lexora.v1 import call_pb2, router_pb2
from lexora.v1.options_pb2 import CallOptions
from lexora.v1.raw_pb2 import RawCall
from tests.support import load
from tests.support.load import Client
from tests.support.queueing import CHAT, MODEL, gateway_for, grpc_stub, slots_held
from tests.support.servers import Gateway, Simulator

HI = load.chat(MODEL, 1)


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator("--itl-ms", "1", model=MODEL) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def gateway(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One slot, and a queue in which a call may wait for a minute."""
    with gateway_for(sim, tmp_path_factory.mktemp("options"), 1) as process:
        yield process


@pytest.fixture
async def http(gateway: Gateway, sim: Simulator) -> AsyncIterator[Client]:
    sim.clear()
    async with load.client(gateway.http) as one:
        yield one


@pytest.fixture
async def stub(gateway: Gateway) -> AsyncIterator[Any]:
    async with grpc_stub(gateway) as found:
        yield found


def generate(**options: Any) -> router_pb2.GenerateRequest:
    raw = RawCall(path=CHAT, body=msgspec.json.encode(HI))
    return router_pb2.GenerateRequest(call=call_pb2.Call(options=CallOptions(**options), raw=raw))


@pytest.mark.parametrize("header", ["0", "0.25"])
async def test_max_queue_time(gateway: Gateway, sim: Simulator, http: Client, stub: Any, header: str) -> None:
    before = gateway.metric("lexora_rejections_total", reason="queue_timeout")
    words = f"The call waited {header} s for backend `main` (its own max_queue_time)."
    async with slots_held(http, sim, 1):
        answer = await http.post(CHAT, HI, x_lexora_max_queue_time=header)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Generate(generate(max_queue_time=Duration(nanos=int(float(header) * 1e9))), timeout=30)
    assert (answer.status, answer.error["code"], answer.error["message"]) == (429, "queue_full", words)
    assert answer.seconds >= float(header)
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, words)
    assert gateway.metric("lexora_rejections_total", reason="queue_timeout") == before + 2
    assert (await http.post(CHAT, HI, x_lexora_max_queue_time=header)).status == 200  # a slot is free


@pytest.mark.parametrize(
    ("header", "value"),
    [("x-lexora-max-queue-time", "soon")],
)
async def test_a_header_that_is_misspelt_is_named(http: Client, header: str, value: str) -> None:
    answer = await http.post(CHAT, HI, **{header.replace("-", "_"): value})
    assert (answer.status, answer.error["param"]) == (400, header)


@pytest.mark.parametrize(
    ("option", "value"),
    [("max_queue_time", Duration(seconds=-1))],
)
async def test_an_option_out_of_bounds_is_named(stub: Any, option: str, value: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Generate(generate(**{option: value}), timeout=30)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert option in str(refused.value.details())
