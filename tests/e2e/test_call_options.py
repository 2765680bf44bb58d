"""What each option of a call does, over HTTP and over gRPC, to a call that real processes serve."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import httpx
import msgspec
import pytest
from google.protobuf.duration_pb2 import Duration

from lexora.v1 import call_pb2, router_pb2
from lexora.v1.options_pb2 import CallOptions
from lexora.v1.raw_pb2 import RawCall
from lexora.v1.recent_calls_pb2 import ListRecentCallsRequest
from lexora.v1.stats_pb2 import GetStatsRequest
from tests.support import load
from tests.support.load import Client
from tests.support.otlp import Receiver, until
from tests.support.queueing import CHAT, MODEL, chats, gateway_for, grpc_stub, slots_held
from tests.support.servers import Gateway, Simulator

HI = load.chat(MODEL, 1)


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator("--itl-ms", "1", model=MODEL) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def collector() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def gateway(sim: Simulator, collector: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One slot, and a queue in which a call may wait for a minute."""
    telling = {"telemetry": {"otlp_endpoint": collector.address}, "logging": {"format": "json"}}
    with gateway_for(sim, tmp_path_factory.mktemp("options"), 1, **telling) as process:
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


def line(gateway: Gateway, name: str) -> dict[str, Any]:
    """The log's line of the call with this request id."""
    return dict(json.loads(gateway.wait_for(rf'.*"request_id":"{name}".*').group(0)))


def span(collector: Receiver, name: str) -> dict[str, Any]:
    """The attributes of the call's own span."""

    def found() -> list[dict[str, Any]]:
        return [each.attributes for each in collector.spans if each.attributes.get("lexora.request_id") == name]

    return until(found)[0]


async def page(gateway: Gateway, path: str) -> str:
    async with httpx.AsyncClient(verify=False) as client:
        return (await client.get(gateway.http + path)).raise_for_status().text


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


async def test_labels(gateway: Gateway, http: Client, stub: Any, collector: Receiver) -> None:
    labels = {"env": "prod", "team": "search"}
    await http.post(CHAT, HI, name="by-http", x_lexora_labels="team=search, env=prod")
    await stub.Generate(generate(request_id="by-grpc", labels=labels), timeout=30)
    await http.post(CHAT, HI, name="without")
    recent = {call["request_id"]: call for call in json.loads(await page(gateway, "/stats/recent"))["calls"]}
    told = {call.request_id: call for call in (await stub.ListRecentCalls(ListRecentCallsRequest())).recent_calls}
    for name in ("by-http", "by-grpc"):
        assert line(gateway, name)["labels"] == labels
        assert recent[name]["labels"] == dict(told[name].labels) == labels
        assert {f"lexora.label.{key}": value for key, value in labels.items()}.items() <= span(collector, name).items()
    assert "labels" not in line(gateway, "without")
    assert recent["without"]["labels"] == {}
    assert not [key for key in span(collector, "without") if key.startswith("lexora.label")]
    assert "search" not in await page(gateway, "/metrics")


async def test_tenant(gateway: Gateway, http: Client, stub: Any) -> None:
    for user in ("alice", "bob"):
        await http.post(CHAT, HI | {"user": user}, name=f"http-{user}", x_lexora_tenant="acme")
        await stub.Generate(generate(request_id=f"grpc-{user}", user=user, tenant="acme"), timeout=30)
    await http.post(CHAT, HI | {"user": "alice"}, name="alone")
    for wire in ("http", "grpc"):
        for user in ("alice", "bob"):
            told = line(gateway, f"{wire}-{user}")
            assert (told["tenant"], told["user"]) == ("acme", user)
    assert line(gateway, "alone")["tenant"] == "alice"
    assert "user" not in line(gateway, "alone")
    by_tenant = (await stub.GetStats(GetStatsRequest())).by_tenant
    assert (by_tenant["acme"].total, by_tenant["alice"].total, "bob" in by_tenant) == (4, 1, False)


async def test_session_key(gateway: Gateway, http: Client, stub: Any, collector: Receiver) -> None:
    await http.post(CHAT, HI, name="session-http", x_lexora_session="chat-7")
    await stub.Generate(generate(request_id="session-grpc", session_key="chat-7"), timeout=30)
    recent = {call["request_id"]: call for call in json.loads(await page(gateway, "/stats/recent"))["calls"]}
    for name in ("session-http", "session-grpc"):
        assert line(gateway, name)["session_key"] == recent[name]["session_key"] == "chat-7"
        assert span(collector, name)["gen_ai.conversation.id"] == "chat-7"
    explained = await http.post(CHAT, HI, x_lexora_session="chat-7", x_lexora_explain="1")
    assert explained.json["session_key"] == "chat-7"


async def test_idempotency_key(gateway: Gateway, sim: Simulator, http: Client, stub: Any) -> None:
    await asyncio.to_thread(sim.fault, "status=503", count=1, path=CHAT)
    await http.post(CHAT, HI, name="key-http", idempotency_key="order-1")
    await stub.Generate(generate(request_id="key-grpc", idempotency_key="order-2"), timeout=30)
    await http.post(CHAT, HI, name="no-key")
    sent = [(call["headers"]["x-request-id"], call["headers"].get("idempotency-key")) for call in chats(sim)]
    assert sent == [("key-http", "order-1"), ("key-http", "order-1"), ("key-grpc", "order-2"), ("no-key", None)]
    assert line(gateway, "key-http")["idempotency_key"] == "order-1"
    assert line(gateway, "key-grpc")["idempotency_key"] == "order-2"


@pytest.mark.parametrize(
    ("header", "value"),
    [("x-lexora-max-queue-time", "soon"), ("x-lexora-labels", "Team=search"), ("idempotency-key", "two words")],
)
async def test_a_header_that_is_misspelt_is_named(http: Client, header: str, value: str) -> None:
    answer = await http.post(CHAT, HI, **{header.replace("-", "_"): value})
    assert (answer.status, answer.error["param"]) == (400, header)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_queue_time", Duration(seconds=-1)),
        ("labels", {"Team": "search"}),
        ("labels", {"team": "a\nb"}),
        ("idempotency_key", "two\nlines"),
    ],
)
async def test_an_option_out_of_bounds_is_named(stub: Any, option: str, value: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Generate(generate(**{option: value}), timeout=30)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert option in str(refused.value.details())
