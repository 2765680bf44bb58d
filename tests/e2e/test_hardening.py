"""Hosts that are served, and connections that grow old."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from lexora.v1.call_pb2 import Call
from lexora.v1.chat_pb2 import ROLE_USER, ChatMessage, ChatRequest
from lexora.v1.router_pb2 import StreamRequest
from lexora.v1.router_pb2_grpc import RouterServiceStub
from tests.support import wire
from tests.support.http2 import GOAWAY, Http2Client
from tests.support.servers import Gateway, Simulator, base_config

MODEL = "qwen3-32b"
AGE_SECONDS = 1.0
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Simulator("--itl-ms", "50", "--ttft-ms", "1", model=MODEL) as sim:
        config = base_config(main={"url": sim.url, "models": [MODEL]})
        config["server"] |= {"hosts": ["llm.example.com", "*.fleet.example", "127.0.0.1", "[::1]"]}
        config["server"]["max_connection_age"] = AGE_SECONDS
        with Gateway(config, tmp_path_factory.mktemp("gateway")) as process:
            yield process


def body(tokens: int, **more: Any) -> bytes:
    return json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": tokens} | more).encode()


HOSTS = {
    "llm.example.com": 200,
    "LLM.example.com:8001": 200,
    "a.fleet.example": 200,
    "a.b.fleet.example:443": 200,
    "127.0.0.1:1": 200,
    "[::1]:8001": 200,
    "fleet.example": 421,
    "evil.example": 421,
    "llm.example.com.evil.example": 421,
    "evilfleet.example": 421,
    "[::2]": 421,
}


@pytest.mark.parametrize("host", HOSTS)
def test_only_some_hosts_are_served(gateway: Gateway, host: str) -> None:
    for path, method, sent in (("/v1/models", "GET", b""), (CHAT, "POST", body(1)), ("/ui/", "GET", b"")):
        headers = {"host": host, "connection": "close"}
        answer = wire.exchange(gateway.http, wire.request(path, sent, method=method, headers=headers))
        assert answer.status == HOSTS[host], (path, answer.body)
    live = wire.exchange(
        gateway.http, wire.request("/health/live", method="GET", headers={"host": host, "connection": "close"})
    )
    assert live.status == 200


def test_a_refused_host_gets_no_second_request(gateway: Gateway) -> None:
    first = wire.request(CHAT, body(1), headers={"host": "evil.example"})
    with wire.connect(gateway.http) as connection:
        connection.sendall(first + wire.request("/v1/models", method="GET", headers={"host": "llm.example.com"}))
        answer = wire.read_response(connection)
        assert (answer.status, answer.header("connection")) == (421, "close")
        assert "server.hosts" in json.loads(answer.body)["error"]["message"]
        assert b"evil" not in answer.body
        assert connection.recv(1) == b""


def test_an_old_connection_ends_between_two_answers(gateway: Gateway) -> None:
    call = wire.request(CHAT, body(1), headers={"host": "127.0.0.1"})
    with wire.connect(gateway.http) as connection:
        began, last = time.monotonic(), None
        while last is None:
            connection.sendall(call)
            answer = wire.read_response(connection)
            assert answer.status == 200
            last = answer.header("connection")
        assert last == "close"
        assert time.monotonic() - began > 0.8 * AGE_SECONDS
        assert connection.recv(1) == b""
    with wire.connect(gateway.http) as connection:  # one that asks nothing
        assert connection.recv(1) == b""


async def test_a_call_that_is_longer_than_its_connection_may_be_old_is_served_to_its_end(gateway: Gateway) -> None:
    tokens = 60  # three seconds
    streamed = wire.request(CHAT, body(tokens, stream=True), headers={"host": "127.0.0.1"})
    answer = await asyncio.to_thread(wire.exchange, gateway.http, streamed)
    assert answer.body.endswith(b"data: [DONE]\n\n")
    asked = ChatRequest(model=MODEL, messages=[ChatMessage(role=ROLE_USER, text="hi")])
    asked.sampling.max_tokens = tokens
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        messages: Any = RouterServiceStub(channel).Stream(StreamRequest(call=Call(chat=asked)), timeout=20)
        last = [message async for message in messages][-1]
    assert last.completed.receipt.usage.output_tokens == tokens
    async with Http2Client.connected(gateway.grpc) as client:
        with pytest.raises(AssertionError, match="max_age"):
            await client.until(GOAWAY, 0xFF)
