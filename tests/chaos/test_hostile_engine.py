"""An engine that sends without end, or no HTTP: its own call fails in time, memory stays, and other calls are served."""

import gzip
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.support.engine import ScriptedEngine
from tests.support.raw_server import RawRequest, chunk, reply, stream_head
from tests.support.servers import Gateway, calm_config
from tests.support.strangers import resident
from tests.support.wire import wait_idle, wait_until

MIB = 2**20
LARGEST = 2 * MIB  # server.max_response_bytes
SECONDS = 2.0  # total_timeout, and the longest silence
MOST = 64 * MIB  # an event of 16 MiB in pieces and whole, and what allocators keep
OK = reply(b'{"id":"1","object":"chat.completion","choices":[]}')
CHOICE = b'{"index":0,"delta":{"content":"x"}}'
EVENT = b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[%b]}\n\n' % CHOICE
Script = Callable[[socket.socket], None]


def endless(first: bytes, more: bytes) -> Script:
    def send(connection: socket.socket) -> None:
        connection.sendall(first)
        while True:  # until the gateway leaves
            connection.sendall(more)

    return send


def whole(answer: bytes) -> Script:
    return lambda connection: connection.sendall(answer)


BOMB = gzip.compress(b'{"a":"' + b"x" * (200 * MIB) + b'"}', 6)
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Case:
    script: Script
    stream: bool = False
    status: int = 502
    broken: bool = False  # a stream that has begun, and ends with an error event


CASES: dict[str, Case] = {
    "a head of one endless header": Case(endless(b"HTTP/1.1 200 OK\r\nx-a: ", b"a" * 8192)),
    "a head of endless headers": Case(endless(b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n" * 1000)),
    "endless interim answers": Case(endless(b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 100)),
    "an endless status line": Case(endless(b"HTTP/1.1 200 ", b"OK" * 4096)),
    "status 099": Case(whole(OK.replace(b"200", b"099", 1))),
    "status 600": Case(whole(OK.replace(b"200", b"600", 1))),
    "status 999": Case(whole(OK.replace(b"200", b"999", 1))),
    "status 20": Case(whole(OK.replace(b"200", b"20", 1))),
    "no HTTP": Case(endless(b"", b"\x16\3\1 hello " * 1000)),
    "an endless body": Case(endless(CHUNKED + chunk(b'{"a":"'), chunk(b"x" * 60_000))),
    "a length without end": Case(
        endless(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99999999999999\r\n\r\n", b"x" * 60_000)
    ),
    "a length that is no number": Case(whole(b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n{}")),
    "a body that unfolds without end": Case(
        whole(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(BOMB) + BOMB)
    ),
    "an endless chunk extension": Case(endless(CHUNKED + b"5;a=", b"b" * 8192)),
    "an endless chunk size": Case(endless(CHUNKED, b"0" * 8192)),
    "endless trailers": Case(endless(CHUNKED + chunk(b"{}") + b"0\r\n", b"x-a: b\r\n" * 1000)),
    "an event without end": Case(endless(stream_head() + chunk(b"data: "), chunk(b"x" * 60_000)), stream=True),
    "an event without end after a good one": Case(
        endless(stream_head() + chunk(EVENT + b"data: "), chunk(b"x" * 60_000)), stream=True, status=200, broken=True
    ),
    "endless trailers of a stream": Case(
        endless(stream_head() + chunk(EVENT) + b"0\r\n", b"x-a: b\r\n" * 1000), stream=True, status=200, broken=True
    ),
    "endless events": Case(endless(stream_head(), chunk(EVENT * 100)), stream=True, status=200, broken=True),
    "endless comments": Case(endless(stream_head(), chunk(b": a\n\n" * 1000)), stream=True, status=504),
    "endless empty lines": Case(endless(stream_head(), chunk(b"\n" * 10_000)), stream=True),
}


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[ScriptedEngine, ScriptedEngine]]:
    with ScriptedEngine("hostile") as hostile, ScriptedEngine("good") as good:
        good.answer = OK
        yield hostile, good


@pytest.fixture(scope="module")
def gateway(engines: tuple[ScriptedEngine, ScriptedEngine], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    hostile, good = engines
    limits = {"type": "openai_compatible", "timeout": SECONDS, "total_timeout": SECONDS}
    config = calm_config(
        hostile={"url": hostile.url, "models": ["hostile"]} | limits, good={"url": good.url, "models": ["good"]} | limits
    )
    config["server"]["max_response_bytes"] = LARGEST
    with Gateway(config, tmp_path_factory.mktemp("gateway")) as process:
        yield process


@pytest.mark.parametrize("name", CASES)
def test_its_own_call_fails_and_no_other(gateway: Gateway, engines: tuple[ScriptedEngine, ScriptedEngine], name: str) -> None:
    case, hostile = CASES[name], engines[0]
    left: list[bool] = []

    def answer(connection: socket.socket, _: RawRequest) -> None:
        try:
            case.script(connection)
        finally:
            left.append(True)

    hostile.answer = answer
    before = resident(gateway.pid)
    ask = {"messages": [{"role": "user", "content": "hi"}]}
    with httpx.Client(base_url=gateway.http, verify=False, timeout=30) as client:
        with client.stream("POST", "/v1/chat/completions", json=ask | {"model": "hostile", "stream": case.stream}) as got:
            assert got.status_code == case.status, got.read()
            last = b""
            for piece in got.iter_bytes():
                last = (last + piece)[-1000:]
        assert (b'"error"' in last) is (case.broken or case.status != 200), last
        assert b"[DONE]" not in last
        assert client.post("/v1/chat/completions", json=ask | {"model": "good"}).status_code == 200
    wait_until(lambda: left, "the gateway to leave the engine")
    assert resident(gateway.pid) - before < MOST
    assert "Traceback" not in gateway.output
    wait_idle(gateway.http)


def test_time_grows_as_bytes_do_however_small_the_pieces(
    gateway: Gateway, engines: tuple[ScriptedEngine, ScriptedEngine]
) -> None:
    def seconds(size: int) -> float:
        """CPU for an event of so many bytes, each in a chunk of its own."""
        text = EVENT.replace(b"x", b"x" * size)
        pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in text)
        engines[0].answer = stream_head() + pieces + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        before = gateway.metric("process_cpu_seconds_total")
        ask = {"model": "hostile", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        answer = httpx.post(f"{gateway.http}/v1/chat/completions", json=ask, verify=False, timeout=60)
        assert len(answer.content) > size
        return gateway.metric("process_cpu_seconds_total") - before

    few, many = 2**17, 2**20
    seconds(few)
    assert seconds(many) < 3 * (many / few) * max(seconds(few), 0.02), "the square of it would be 8 times as much"
