"""Calls leave no reference cycles: what hangs on one, bodies included, would stay until a collection, and those are rare."""

import contextlib
import json
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from lexora.v1.call_pb2 import Call
from lexora.v1.raw_pb2 import RawCall
from lexora.v1.router_pb2 import GenerateRequest, StreamRequest
from lexora.v1.router_pb2_grpc import RouterServiceStub
from tests.support import wire
from tests.support.process import Process
from tests.support.servers import Simulator, calm_config, write_config

MODEL = "qwen3-32b"
CALLS = 40
COLLECTED = r"collected (\d+) objects"
OF_GRPC = 5  # objects of grpc's own that each call leaves: a function in its look-up of the method has itself
# At each SIGUSR1 it says how many objects only a collection has freed; from the first on there is no other collection.
COLLECTING = """
import gc, signal
from lexora_cli.main import main

def collect(*_):
    print(f"collected {gc.collect()} objects", flush=True)
    gc.disable()

signal.signal(signal.SIGUSR1, collect)
main()
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, httpx.Client]]:
    folder: Path = tmp_path_factory.mktemp("garbage")
    with Simulator("--itl-ms", "1", model=MODEL) as engine, Simulator("--itl-ms", "1", model=MODEL) as other:
        config = calm_config(main={"urls": [engine.url, other.url], "models": [MODEL]})
        config["health"] |= {"quarantine": False}
        file = write_config(config, folder)
        with Process([sys.executable, "-c", COLLECTING, "serve", "--config", str(file)]) as process:
            url = process.wait_ready(r"http=(http://\S+)").group(1)
            with httpx.Client(base_url=url, trust_env=False) as client:
                yield process, client


def chat(client: httpx.Client, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, **more}
    return client.post("/v1/chat/completions", json=body, headers=headers)


def broken(fault: str) -> Callable[[httpx.Client], httpx.Response]:
    return lambda client: chat(client, stream=True, sim_fault=fault)


def leave(client: httpx.Client) -> httpx.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 500, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        next(answer.iter_raw())
        return answer


def collected(process: Process) -> int:
    """How many objects a collection frees now."""
    before = len(re.findall(COLLECTED, process.output))
    process.signal(signal.SIGUSR1)
    wire.wait_until(lambda: len(re.findall(COLLECTED, process.output)) > before, "the collection")
    return int(re.findall(COLLECTED, process.output)[-1])


@pytest.mark.parametrize(
    ("ask", "status"),
    [
        (chat, 200),
        (lambda client: chat(client, stream=True), 200),
        (leave, 200),
        (lambda client: chat(client, headers={"connection": "close"}), 200),
        (lambda client: chat(client, model=7), 400),
        (lambda client: chat(client, max_tokens=-1), 400),
        (broken("die_after=2;how=error"), 200),
        (broken("die_after=2;how=abort"), 200),
        (broken("malformed=2"), 200),
        (lambda client: client.get("/health/live"), 200),
        (lambda client: client.get("/nowhere"), 404),
    ],
    ids=[
        "whole",
        "streamed",
        "left",
        "closed",
        "refused",
        "refused by the engine",
        "error event",
        "aborted",
        "malformed",
        "no call",
        "unknown path",
    ],
)
def test_a_call_leaves_nothing_to_collect(
    gateway: tuple[Process, httpx.Client], ask: Callable[[httpx.Client], httpx.Response], status: int
) -> None:
    process, client = gateway
    for _ in range(3):
        assert ask(client).status_code == status
    collected(process)
    for _ in range(CALLS):
        assert ask(client).status_code == status
    assert collected(process) < CALLS


def request(**more: Any) -> Call:
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, **more})
    return Call(raw=RawCall(path="/v1/chat/completions", content_type="application/json", body=body.encode()))


def generate(stub: RouterServiceStub, **more: Any) -> grpc.StatusCode:
    try:
        stub.Generate(GenerateRequest(call=request(**more)), timeout=20)
    except grpc.RpcError as error:
        return error.code()  # type: ignore[attr-defined, no-any-return]
    return grpc.StatusCode.OK


def stream(stub: RouterServiceStub, **more: Any) -> grpc.StatusCode:
    answer: Any = stub.Stream(StreamRequest(call=request(stream=True, **more)), timeout=20)
    with contextlib.suppress(grpc.RpcError):
        list(answer)
    return answer.code()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (generate, grpc.StatusCode.OK),
        (stream, grpc.StatusCode.OK),
        (lambda stub: generate(stub, model=7), grpc.StatusCode.INVALID_ARGUMENT),
        (lambda stub: stream(stub, model=7), grpc.StatusCode.INVALID_ARGUMENT),
        (lambda stub: generate(stub, max_tokens=-1), grpc.StatusCode.INVALID_ARGUMENT),
        (lambda stub: stream(stub, sim_fault="die_after=2;how=abort"), grpc.StatusCode.UNAVAILABLE),
    ],
    ids=["whole", "streamed", "refused", "a stream that is refused", "refused by the engine", "aborted"],
)
def test_a_call_over_grpc_leaves_nothing_to_collect(
    gateway: tuple[Process, httpx.Client], ask: Callable[[RouterServiceStub], grpc.StatusCode], code: grpc.StatusCode
) -> None:
    process, _ = gateway
    [target] = re.findall(r"grpc=(\S+)", process.output)
    with grpc.insecure_channel(target) as channel:
        stub = RouterServiceStub(channel)  # type: ignore[no-untyped-call]
        for _ in range(3):
            assert ask(stub) == code
        collected(process)
        for _ in range(CALLS):
            assert ask(stub) == code
        assert collected(process) < (OF_GRPC + 1) * CALLS
