"""The application of `create_app` on a server that is not the product's own answers as `lexora serve` does."""

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lexora_contract.operations import OPERATIONS
from tests.support import wire
from tests.support.engine import ScriptedEngine, until_closed
from tests.support.process import Process
from tests.support.raw_server import LAST_CHUNK, RawRequest, chunk, reply, stream, stream_head
from tests.support.servers import Gateway, asgi_server, calm_config

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
STREAMED = b'{"model":"m","stream":true,"messages":[]}'
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
MIB = 2**20


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("m") as engine:
        yield engine


@pytest.fixture(scope="module")
def router(engine: ScriptedEngine, folder: Path) -> Iterator[Gateway]:
    config = calm_config(main={"url": engine.url})
    config["server"]["max_body_bytes"] = 8 * MIB
    with Gateway(config, folder) as process:
        yield process


@pytest.fixture(scope="module")
def served(router: Gateway) -> Iterator[tuple[str, Process]]:
    with asgi_server(router.grpc) as (base, process):
        yield base, process


@pytest.fixture(params=["own", "asgi"])
def base(request: pytest.FixtureRequest, router: Gateway, served: tuple[str, Process]) -> Iterator[str]:
    yield router.http if request.param == "own" else served[0]
    wire.wait_idle(router.http)
    assert "Traceback" not in router.output + served[1].output


BROKEN = reply(b'{"error":{"message":"busy" ,"code":429}}', status="429 Too Many Requests", headers="retry-after: 7\r\n")
CODED = {"content-encoding": "gzip"}
# What is sent, what the engine answers, and the status and body that come back; of a body only a part.
CASES: dict[str, tuple[bytes, dict[str, str], bytes, int, bytes]] = {
    "whole": (BODY, {}, reply(b'{"seed":9007199254740993 , "x": null}'), 200, b'{"seed":9007199254740993 , "x": null}'),
    "a stream": (STREAMED, {}, stream(EVENT, DONE), 200, EVENT + DONE),
    "gzip": (gzip.compress(BODY), CODED, reply(b"{}"), 200, b"{}"),
    "not gzip": (b"nonsense", CODED, reply(b"{}"), 400, b"is not valid gzip"),
    "no JSON": (b"{", {}, reply(b"{}"), 400, b"invalid_request_error"),
    "no body": (b"", {}, reply(b"{}"), 400, b"The request body is empty"),
    "too large": (b"x" * (8 * MIB + 1), {}, reply(b"{}"), 413, b"request_too_large"),
    "the engine's error": (BODY, {}, BROKEN, 429, b'{"error":{"message":"busy" ,"code":429}}'),
    "broken off": (STREAMED, {}, stream_head("connection: close\r\n") + chunk(EVENT), 200, b'"code":"upstream_broken"'),
    "a large body": (json.dumps({"model": "m", "messages": [], "x": "y" * 3 * MIB}).encode(), {}, reply(b"{}"), 200, b"{}"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_answer(base: str, engine: ScriptedEngine, case: str) -> None:
    body, headers, engine.answer, status, expected = CASES[case]
    answer = httpx.post(base + CHAT, content=body, headers={"content-type": "application/json"} | headers, verify=False)
    assert (answer.status_code, answer.content.count(expected)) == (status, 1)
    assert answer.headers["x-request-id"]
    if case in ("whole", "a stream"):
        assert answer.content == expected
        assert answer.headers["x-lexora-backend"] == "main"


def test_pieces_arrive_as_they_are_made_and_leaving_cancels(base: str, engine: ScriptedEngine) -> None:
    more, left = threading.Semaphore(0), threading.Event()

    def in_pieces(connection: socket.socket, _: RawRequest) -> None:
        connection.sendall(stream_head() + chunk(EVENT))
        for _ in range(2):
            more.acquire(timeout=5)
            connection.sendall(chunk(EVENT))
        until_closed(connection)
        left.set()

    engine.answer = in_pieces
    with wire.connect(base) as connection:
        connection.sendall(wire.request(CHAT, STREAMED))
        got = b""
        for count in (1, 2, 3):
            while got.count(b"hi") < count:
                got += connection.recv(65536)
            assert got.count(b"hi") == count
            more.release()
    assert left.wait(5)


def test_a_client_that_pauses_stops_the_engine_and_loses_nothing(base: str, engine: ScriptedEngine) -> None:
    size, stalled = 64 * MIB, threading.Event()
    event = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 100_000)

    def flood(connection: socket.socket, _: RawRequest) -> None:
        connection.sendall(stream_head())
        connection.settimeout(1.0)
        for _ in range(size // len(event)):
            data = memoryview(chunk(event))
            while data:
                try:
                    data = data[connection.send(data) :]
                except TimeoutError:
                    stalled.set()
        connection.settimeout(5.0)
        connection.sendall(chunk(DONE) + LAST_CHUNK)

    engine.answer = flood
    with wire.connect(base, 30) as connection:
        connection.sendall(wire.request(CHAT, STREAMED, headers={"connection": "close"}))
        assert stalled.wait(20)
        assert wire.read_response(connection).body == event * (size // len(event)) + DONE


def test_every_relayed_path_is_served_and_described(base: str, engine: ScriptedEngine) -> None:
    with httpx.Client(base_url=base, verify=False) as http:
        assert set(OPERATIONS) <= http.get("/openapi.json").json()["paths"].keys()
        assert {http.post(path, content=b"").status_code for path in OPERATIONS} == {400}
