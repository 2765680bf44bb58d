"""A client that takes nothing of its stream gives its slot back after `server.write_timeout`, by every way in."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from lexora.v1.call_pb2 import Call
from lexora.v1.raw_pb2 import RawCall
from lexora.v1.router_pb2 import StreamRequest
from tests.support import load, wire
from tests.support.links import status_in
from tests.support.loop_engine import LoopEngine
from tests.support.process import Process
from tests.support.queueing import CHAT, MODEL, grpc_stub
from tests.support.raw_server import Do, chunk, stream_head
from tests.support.servers import LEXORA, Gateway, base_config
from tests.support.tls import HOST, Authority

SECONDS = 1.0
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
FLOOD = (stream_head(), *[chunk(EVENT % (b"x" * 65_000))] * 1000, Do.HANG)
BODY = msgspec.json.encode(load.chat(MODEL, 1, stream=True))
WAYS = ("http", "two processes", "grpc", "https", "grpc over TLS")


@pytest.fixture
async def engine() -> AsyncIterator[LoopEngine]:
    async with LoopEngine(MODEL) as engine:
        yield engine


@asynccontextmanager
async def served(engine: LoopEngine, folder: Path, way: str) -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway with one slot, and the address that `way` asks."""
    config = base_config(main={"url": engine.url, "models": [MODEL], "max_concurrency": 1})
    config["server"]["write_timeout"] = SECONDS
    if way in ("https", "grpc over TLS"):
        pair = await asyncio.to_thread(Authority(folder).issue, "server")
        config["server"]["tls"] = {"cert": str(pair.cert), "key": str(pair.key)}
    gateway = await asyncio.to_thread(Gateway, config, folder)
    with gateway:
        if way != "two processes":
            yield gateway, gateway.grpc if "grpc" in way else gateway.http
            return
        command = [*LEXORA, "gateway", "--router", gateway.grpc, "--config", str(gateway.config_file)]
        with Process(command) as front:
            line = await asyncio.to_thread(front.wait_ready, r"http=\S*?(http://[\d.:]+)")
            yield gateway, line.group(1)


@asynccontextmanager
async def deaf(address: str, way: str, folder: Path) -> AsyncIterator[Any]:
    """A client that asks for a stream and reads nothing of it."""
    if "grpc" in way:
        async with channel_of(address, way, folder) as channel:
            method = channel.unary_stream(
                "/lexora.v1.RouterService/Stream", StreamRequest.SerializeToString, lambda message: message
            )
            yield method(StreamRequest(call=Call(raw=RawCall(path=CHAT, body=BODY))))
        return
    host, _, port = address.partition("//")[2].partition(":")
    with socket.socket() as client:
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (host, int(port)))
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n"
        if way == "https":
            client.setblocking(True)
            secured = await asyncio.to_thread(trusting(folder).wrap_socket, client, server_hostname=HOST)
            with secured:
                secured.sendall(head.encode() + BODY)
                yield secured
            return
        await loop.sock_sendall(client, head.encode() + BODY)
        yield client


def trusting(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(folder / "ca.pem"))


def channel_of(address: str, way: str, folder: Path) -> grpc.aio.Channel:
    options = [("grpc.http2.bdp_probe", 0)]
    if way == "grpc":
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials((folder / "ca.pem").read_bytes()), options=options)


async def to_its_end(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def send_forever(client: socket.socket, data: bytes) -> None:
    while True:
        await asyncio.get_running_loop().sock_sendall(client, data)


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_takes_nothing_gives_its_slot_back(engine: LoopEngine, tmp_path: Path, way: str) -> None:
    engine.answer(*FLOOD)
    async with served(engine, tmp_path, way) as (gateway, address), deaf(address, way, tmp_path) as call:
        await engine.wait_requests()
        await engine.wait_left()
        await asyncio.to_thread(wire.wait_until, lambda: gateway.metric("lexora_active_requests") == 0, "the call to end")
        assert gateway.metric("lexora_endpoint_in_flight") == 0
        await asyncio.to_thread(gateway.wait_for, r"status=499")
        if "grpc" in way:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await to_its_end(call)
            info = ErrorInfo()
            assert any(detail.Unpack(info) for detail in status_in(caught.value).details)
            assert (caught.value.code(), info.reason) == (grpc.StatusCode.ABORTED, "CLIENT_STALLED")
            assert "server.write_timeout" in str(caught.value.details())
    assert "Traceback" not in gateway.output


async def test_a_client_that_is_slow_is_not_cut_off(engine: LoopEngine, tmp_path: Path) -> None:
    engine.answer(*FLOOD)
    async with served(engine, tmp_path, "grpc") as (gateway, _), grpc_stub(gateway) as stub:
        call = stub.Stream(StreamRequest(call=Call(raw=RawCall(path=CHAT, body=BODY))))
        until = asyncio.get_running_loop().time() + 3 * SECONDS
        while asyncio.get_running_loop().time() < until:
            taken = 0
            while taken < 2_000_000:
                taken += len((await call.read()).delta.frames)
            await asyncio.sleep(SECONDS / 5)
        assert not engine.left_at
        call.cancel()
        await engine.wait_left()


async def test_a_client_that_reads_no_refusals_is_cut_off_however_many_it_asks_for(engine: LoopEngine, tmp_path: Path) -> None:
    refused = wire.request(CHAT, b"{}", headers={"content-type": "text/plain"}) * 100
    async with served(engine, tmp_path, "http") as (gateway, address), deaf(address, "http", tmp_path) as client:
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(send_forever(client, refused), 60 * SECONDS)
        assert gateway.metric("lexora_active_requests") == 0
    assert "Traceback" not in gateway.output
