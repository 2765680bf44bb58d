"""Streams: whole events as they come, usage always counted, and a broken one never looks clean."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2, status_pb2

from lexora.v1 import call_pb2, receipt_pb2, router_pb2, router_pb2_grpc
from lexora.v1.raw_pb2 import RawCall
from tests.e2e.conftest import EMBEDDING_MODEL, MODEL
from tests.support import wire
from tests.support.captures import exchange
from tests.support.engine import ScriptedEngine, until_closed
from tests.support.raw_server import LAST_CHUNK, RawRequest, chunk, stream_head
from tests.support.servers import Gateway, Simulator, calm_config

CHAT = "/v1/chat/completions"
IDLE_SECONDS = 0.3
HELLO = [{"role": "user", "content": "Tell me about foxes."}]
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": MODEL, "messages": HELLO, "max_tokens": 20, "seed": 1, "stream": True},
    "/v1/completions": {"model": MODEL, "prompt": "Once", "max_tokens": 20, "seed": 1, "stream": True},
    "/v1/responses": {"model": MODEL, "input": "Tell me.", "max_output_tokens": 20, "seed": 1, "stream": True},
    "/v1/messages": {"model": MODEL, "messages": HELLO, "max_tokens": 20, "stream": True},
}


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("scripted", "tiny-chat") as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(sim: Simulator, engine: ScriptedEngine, folder: Path) -> Iterator[Gateway]:
    main = {"url": sim.url, "models": [MODEL, EMBEDDING_MODEL], "idle_timeout": IDLE_SECONDS}
    scripted = {"url": engine.url, "models": ["scripted", "tiny-chat"], "idle_timeout": IDLE_SECONDS}
    with Gateway(calm_config(main=main, scripted=scripted), folder) as process:
        yield process


@pytest.fixture(autouse=True)
def nothing_is_left(gateway: Gateway) -> Iterator[None]:
    yield
    wire.wait_idle(gateway.http)


def events(text: str) -> list[str]:
    """The events of a stream; every one must be whole."""
    assert text.endswith("\n\n")
    return text.removesuffix("\n\n").split("\n\n")


def data(event: str) -> Any:
    """The JSON in an event's data."""
    return json.loads(event.split("data: ", 1)[1])


# -- usage


@pytest.mark.parametrize("path", BODIES)
def test_usage_is_counted_though_nobody_asked(http: httpx.Client, path: str) -> None:
    before = http.get("/stats").json()
    answer = http.post(path, json=BODIES[path] | {"ignore_eos": True})
    after = http.get("/stats").json()
    assert after["total_tokens_output"] - before["total_tokens_output"] == 20
    assert after["total_tokens_input"] - before["total_tokens_input"] > 0
    if path in (CHAT, "/v1/completions"):
        assert '"usage"' not in answer.text
        assert answer.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_usage_is_shown_to_who_asks(http: httpx.Client, path: str) -> None:
    answer = http.post(path, json=BODIES[path] | {"stream_options": {"include_usage": True}, "ignore_eos": True})
    last = data(events(answer.text)[-2])
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 20)


def test_the_engine_is_asked_and_the_client_sees_what_it_would_have_seen(http: httpx.Client, sim: Simulator) -> None:
    through = http.post(CHAT, json=BODIES[CHAT], headers={"x-request-id": "same"})
    assert json.loads(sim.posts()[-1]["body"])["stream_options"] == {"include_usage": True}
    direct = httpx.post(f"{sim.url}{CHAT}", json=BODIES[CHAT], headers={"x-request-id": "same"}, verify=False)

    def shown(text: str) -> list[Any]:
        pieces = [data(event) for event in events(text)[:-1]]
        return [(piece["id"], piece["choices"]) for piece in pieces]

    assert shown(through.text) == shown(direct.text)


# -- failures


CAPTURED = [
    "vllm-faults/worker_sigkill",
    "vllm-faults/server_sigterm",
    "vllm-faults/worker_sigstop",
    "llama-faults/server_sigkill",
    "llama-faults/server_sigstop",
    "llama-faults/server_sigterm",
]
SIMULATED = ["error", "abort", "eof", "rst", "fin", "freeze"]


def replay(name: str) -> Callable[[socket.socket, RawRequest], None]:
    """Answer as the captured engine did: what it sent, and then its kind of end."""

    def answer(connection: socket.socket, _: RawRequest) -> None:
        connection.sendall(exchange(name).response)
        if name.endswith("sigstop") or name == "llama-faults/server_sigterm":
            until_closed(connection)

    return answer


def ask(http: httpx.Client, engine: ScriptedEngine, case: str, path: str = CHAT) -> httpx.Response:
    """One stream that fails as the case says, over HTTP."""
    if "/" in case:
        engine.answer = replay(case)
        return http.post(path, content=exchange(case).body, headers={"content-type": "application/json"})
    return http.post(path, json=BODIES[path] | {"sim_fault": fault_of(case)})


def fault_of(case: str) -> str:
    return "freeze_after=12" if case == "freeze" else f"die_after=12;how={case}"


def expected_code(case: str) -> str | None:
    if case == "freeze" or case.endswith("sigstop") or case == "llama-faults/server_sigterm":
        return "upstream_timeout"
    return None if case in ("error", "vllm-faults/worker_sigkill") else "upstream_broken"


@pytest.mark.parametrize("case", CAPTURED + SIMULATED)
def test_a_broken_stream_ends_in_an_error_event_and_no_done(http: httpx.Client, engine: ScriptedEngine, case: str) -> None:
    answer = ask(http, engine, case)
    found = events(answer.text)
    assert answer.status_code == 200
    assert "[DONE]" not in answer.text
    assert len(found) >= 3
    assert all("error" not in data(event) for event in found[:-1])
    error = data(found[-1])["error"]
    assert error["message"]
    if (code := expected_code(case)) is not None:
        assert (set(error), error["type"], error["code"]) == ({"message", "type", "param", "code"}, "api_error", code)
    else:
        # The engine said it itself, and in its own words.
        assert error["message"].startswith("EngineCore encountered an issue")


@pytest.mark.parametrize("case", CAPTURED + SIMULATED)
async def test_a_broken_stream_ends_in_a_status_over_grpc(gateway: Gateway, engine: ScriptedEngine, case: str) -> None:
    body = exchange(case).body if "/" in case else json.dumps(BODIES[CHAT] | {"sim_fault": fault_of(case)}).encode()
    if "/" in case:
        engine.answer = replay(case)
    code, error, frames = await grpc_stream(gateway, body)
    timeout = expected_code(case) == "upstream_timeout"
    assert code is (grpc.StatusCode.DEADLINE_EXCEEDED if timeout else grpc.StatusCode.UNAVAILABLE)
    assert error.reason == ("UPSTREAM_TIMEOUT" if timeout else "UPSTREAM_BROKEN")
    assert frames.count(b"data: ") >= 2
    assert b"[DONE]" not in frames
    assert b'"error"' not in frames


async def grpc_stream(gateway: Gateway, body: bytes) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo, bytes]:
    """Code, ErrorInfo and frames of a stream that fails."""
    frames = b""
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        call = router_pb2_grpc.RouterServiceStub(channel).Stream(
            router_pb2.StreamRequest(call=call_pb2.Call(raw=RawCall(path=CHAT, body=body))), timeout=10
        )
        try:
            async for message in call:
                frames += message.delta.frames
        except grpc.aio.AioRpcError as failure:
            return failure.code(), error_info(failure), frames
    raise AssertionError(f"the stream ended well: {frames[-300:]!r}")


def error_info(failure: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    trailing = {str(key): value for key, value in failure.trailing_metadata() or ()}
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    receipt = receipt_pb2.Receipt()
    assert any(detail.Unpack(info) for detail in status.details)
    assert any(detail.Unpack(receipt) for detail in status.details)
    assert receipt.backend
    return info


# -- time


def test_the_status_waits_for_the_engine(gateway: Gateway, engine: ScriptedEngine) -> None:
    released = threading.Event()
    engine.answer = held_back(released)
    with wire.connect(gateway.http) as connection:
        body = json.dumps(BODIES[CHAT] | {"model": "scripted"}).encode()
        connection.sendall(wire.request(CHAT, body))
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        released.set()
        connection.settimeout(5)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def held_back(released: threading.Event) -> Callable[[socket.socket, RawRequest], None]:
    """Send the head, wait, then the first event and the end."""

    def answer(connection: socket.socket, _: RawRequest) -> None:
        connection.sendall(stream_head())
        assert released.wait(5)
        first = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
        connection.sendall(chunk(first) + chunk(b"data: [DONE]\n\n") + LAST_CHUNK)

    return answer


def test_a_token_is_not_held_back(gateway: Gateway, engine: ScriptedEngine) -> None:
    """Each event must arrive while the engine waits for the client to have seen it."""
    seen = [threading.Event() for _ in range(5)]

    def answer(connection: socket.socket, _: RawRequest) -> None:
        connection.sendall(stream_head())
        for number, each in enumerate(seen):
            connection.sendall(chunk(b'data: {"choices":[{"index":0,"delta":{"content":"%d"}}]}\n\n' % number))
            assert each.wait(0.25), f"event {number} did not reach the client"
        connection.sendall(chunk(b"data: [DONE]\n\n") + LAST_CHUNK)

    engine.answer = answer
    body = json.dumps(BODIES[CHAT] | {"model": "scripted"}).encode()
    with wire.connect(gateway.http) as connection:
        connection.sendall(wire.request(CHAT, body))
        got = b""
        for number, each in enumerate(seen):
            while b'"content":"%d"' % number not in got:
                more = connection.recv(65536)
                assert more
                got += more
            each.set()


# -- framing


def test_a_malformed_event_passes_and_the_stream_goes_on(http: httpx.Client) -> None:
    answer = http.post(CHAT, json=BODIES[CHAT] | {"sim_fault": "malformed=6"})
    assert answer.text.endswith("data: [DONE]\n\n")


def test_a_slow_reader_loses_nothing_and_is_no_silent_engine(gateway: Gateway, engine: ScriptedEngine) -> None:
    event = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 32768)
    sent = threading.Event()

    def answer(connection: socket.socket, _: RawRequest) -> None:
        connection.sendall(stream_head())
        for _number in range(800):  # 26 MB: more than all the buffers on the way can hold
            connection.sendall(chunk(event))
        connection.sendall(chunk(b"data: [DONE]\n\n") + LAST_CHUNK)
        sent.set()

    engine.answer = answer
    with wire.connect(gateway.http) as connection:
        body = json.dumps(BODIES[CHAT] | {"model": "scripted"}).encode()
        connection.sendall(wire.request(CHAT, body, headers={"connection": "close"}))
        assert not sent.wait(3 * IDLE_SECONDS), "the engine must be held up by the client"
        answered = wire.read_response(connection)
    assert answered.body == event * 800 + b"data: [DONE]\n\n"
