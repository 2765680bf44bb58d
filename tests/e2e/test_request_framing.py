"""Where a request ends is certain, whatever is offered or malformed in it: each gets its own answer, and no other."""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import wire
from tests.support.engine import ScriptedEngine, until_closed
from tests.support.raw_server import reply, stream
from tests.support.servers import Gateway, calm_config

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
STREAMED = b'{"model":"m","stream":true,"messages":[]}'
ANSWER = b'{"object":"chat.completion","choices":[]}'
HOST = "host: gateway\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\nhost: gateway\r\n\r\n"
LAST = b"GET /health/live HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("m") as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(engine: ScriptedEngine, folder: Path) -> Iterator[Gateway]:
    with Gateway(calm_config(main={"url": engine.url}), folder) as process:
        yield process


@pytest.fixture(autouse=True)
def fresh(gateway: Gateway, engine: ScriptedEngine) -> Iterator[None]:
    engine.answer = reply(ANSWER)
    engine.requests.clear()
    yield
    wire.wait_idle(gateway.http)
    assert "Traceback" not in gateway.output


def until_close(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def answers_to(gateway: Gateway, *pieces: bytes) -> bytes:
    """All that comes until the gateway closes; each piece is a packet of its own."""
    with wire.connect(gateway.http) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return until_close(connection)


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


def post(headers: str, body: bytes, *, chunked: bool = False, version: str = "1.1") -> bytes:
    """A chat; in chunks of seven bytes, or with its length."""
    head = f"POST {CHAT} HTTP/{version}\r\n{HOST}content-type: application/json\r\n{headers}"
    if not chunked:
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    pieces = [body[start : start + 7] for start in range(0, len(body), 7)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return f"{head}transfer-encoding: chunked\r\n\r\n".encode() + framed + b"0\r\n\r\n"


# -- offers of an upgrade

OFFERS = {
    "h2c": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n",
    "websocket": "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "two lines": "Connection: foo\r\nConnection: UPGRADE\r\nUpgrade: TLS/1.3, foo/2\r\n",
    "expecting": "Connection: Upgrade\r\nUpgrade: h2c\r\nExpect: 100-continue\r\n",
}


@pytest.mark.parametrize("chunked", [False, True], ids=["by length", "chunked"])
@pytest.mark.parametrize("offer", OFFERS)
def test_an_offered_upgrade_is_ignored(gateway: Gateway, engine: ScriptedEngine, offer: str, chunked: bool) -> None:
    request = post(OFFERS[offer], BODY, chunked=chunked)
    head, mark, body = request.partition(b"\r\n\r\n")
    everything = request + LIVE + request + LAST
    cuts = {
        "one packet": [everything],
        "head and body": [head + mark, body + LIVE, head + mark, body + LAST],
        "byte by byte": [everything[index : index + 1] for index in range(len(everything))],
    }
    for cut, pieces in cuts.items():
        engine.requests.clear()
        answers = answers_to(gateway, *pieces)
        assert [status for status in statuses(answers) if status != 100] == [200, 200, 200, 200], cut
        assert answers.count(ANSWER) == 2
        assert [request.body for request in engine.requests] == [BODY, BODY]
        assert not {"upgrade", "http2-settings"} & engine.last.names


def test_a_body_behind_an_offer_never_runs_as_a_request(gateway: Gateway, engine: ScriptedEngine) -> None:
    smuggled = post("", b'{"model":"m","messages":"smuggled"}')
    answers = answers_to(gateway, *post(OFFERS["h2c"], smuggled).partition(b"\r\n\r\n"), LAST)
    assert statuses(answers) == [400, 200]
    assert not engine.requests


def test_closing_with_an_offer_closes(gateway: Gateway) -> None:
    answers = answers_to(gateway, post("Connection: close, Upgrade\r\nUpgrade: h2c\r\n", BODY) + LIVE)
    assert statuses(answers) == [200]


def test_nothing_after_the_last_request_is_one(gateway: Gateway, engine: ScriptedEngine) -> None:
    for version, headers in (("1.1", "connection: close\r\n"), ("1.0", "")):
        engine.requests.clear()
        assert statuses(answers_to(gateway, post(headers, BODY, version=version) + post("", BODY))) == [200]
        assert len(engine.requests) == 1


@pytest.mark.skipif(shutil.which("javac") is None, reason="no JDK")
def test_a_client_that_stops_sending_reads_what_was_asked_and_its_call_ends(gateway: Gateway, engine: ScriptedEngine) -> None:
    left: list[float] = []
    engine.answer = lambda connection, _: left.append(until_closed(connection))
    with wire.connect(gateway.http) as connection:
        connection.sendall(LIVE * 2)
        connection.shutdown(socket.SHUT_WR)
        assert statuses(until_close(connection)) == [200, 200]
    with wire.connect(gateway.http) as connection:
        connection.sendall(post("", BODY))
        wire.wait_until(lambda: bool(engine.requests), "at the engine")
        connection.shutdown(socket.SHUT_WR)
        assert not until_close(connection)
    wire.wait_until(lambda: bool(left), "left")


def test_the_jdk_client(gateway: Gateway) -> None:
    source = Path(__file__).with_name("Client.java")
    done = subprocess.run(
        ["java", "-XX:TieredStopAtLevel=1", source, gateway.http + CHAT, BODY.decode()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines() == [f"200 {ANSWER.decode()}"] * 3, done.stderr


def test_curl_that_offers_http2(gateway: Gateway) -> None:
    one = ["--http2", "-s", "-w", "%{http_code}", "-H", "content-type: application/json", "-d", BODY, gateway.http + CHAT]
    chunked = ["--next", "-H", "transfer-encoding: chunked", *one]
    done = subprocess.run(["curl", *one, *chunked], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == f"{ANSWER.decode()}200" * 2


# -- heads and bodies whose meaning is not certain

CHUNKED = "transfer-encoding: chunked\r\n"
UNCERTAIN: dict[str, tuple[int, bytes]] = {
    "no host": (400, post("", BODY).replace(HOST.encode(), b"")),
    "two hosts": (400, post(HOST, BODY)),
    "two hosts of HTTP/1.0": (400, post(HOST, BODY, version="1.0")),
    "a host with a path": (400, post("", BODY).replace(b"host: gateway", b"host: a/b")),
    "two lengths": (400, post("content-length: 57\r\n", BODY)),
    "a length and chunks": (400, post(CHUNKED, BODY)),
    "chunks twice": (400, post(CHUNKED, BODY, chunked=True)),
    "a coding inside chunks": (501, post("", BODY, chunked=True).replace(b": chunked", b": gzip, chunked")),
    "chunks inside a coding": (400, post("", BODY, chunked=True).replace(b": chunked", b": chunked, gzip")),
    "identity": (400, post("transfer-encoding: identity\r\n", BODY)),
    "a space before the colon": (400, post("transfer-encoding : chunked\r\n", BODY)),
    "a folded line": (400, post("x-a: b\r\n c\r\n", BODY)),
    "bare newlines": (400, post("", BODY).replace(b"\r\n", b"\n")),
    "a bare newline in a value": (400, post("x-a: b\nx-c: d\r\n", BODY)),
    "a chunk without a size": (400, post(CHUNKED, b"zz\r\n").replace(b"content-length: 4\r\n", b"")),
    "a chunk size that overflows": (400, post("", BODY, chunked=True).replace(b"\r\n7\r\n", b"\r\n10000000000000007\r\n", 1)),
    "a chunk longer than its size": (400, post("", BODY, chunked=True).replace(b"\r\n7\r\n", b"\r\n6\r\n", 1)),
    "a length among the trailers": (400, post("", BODY, chunked=True)[:-2] + b"content-length: 5\r\n\r\n"),
    "HTTP/2.0": (505, post("", BODY, version="2.0")),
    "HTTP/1.2": (400, post("", BODY, version="1.2")),
    "the HTTP/2 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "CONNECT": (405, b"CONNECT gateway:443 HTTP/1.1\r\nhost: gateway:443\r\n\r\n" + LIVE),
    "a target that is none": (400, post("", BODY).replace(CHAT.encode(), b"\xff\xfe")),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
}


@pytest.mark.parametrize("case", UNCERTAIN)
def test_what_is_uncertain_is_refused_in_the_usual_shape(gateway: Gateway, engine: ScriptedEngine, case: str) -> None:
    status, data = UNCERTAIN[case]
    # What stands before it is answered all the same, and what comes after it is no request.
    for before, pieces in ((0, [data + LIVE]), (1, [LIVE + data, LIVE]), (1, [LIVE, data + LIVE])):
        answers = answers_to(gateway, *pieces)
        assert statuses(answers) == [200] * before + [status]
        head, _, body = answers[answers.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
        error = json.loads(body)["error"]
        assert error["message"]
        assert set(error) == {"message", "type", "param", "code"}
        assert b"\r\nconnection: close" in head
        assert b"\r\nx-request-id: " in head
    assert not engine.requests


def test_a_refused_chunk_behind_the_begin_of_a_body(gateway: Gateway, engine: ScriptedEngine) -> None:
    request = post("x-request-id: mine\r\n", BODY, chunked=True)[:-20]
    answers = answers_to(gateway, LIVE, request, b"\r\nzz\r\n", LIVE)
    assert statuses(answers) == [200, 400]
    assert b"x-request-id: mine" in answers
    assert not engine.requests


# -- clients of HTTP/1.0


@pytest.mark.parametrize("headers", ["", "connection: keep-alive\r\n", "expect: 100-continue\r\n", OFFERS["h2c"]])
def test_a_stream_to_an_http10_client_has_no_chunks_and_ends_with_the_connection(
    gateway: Gateway, engine: ScriptedEngine, headers: str
) -> None:
    events = [b'data: {"choices":[]}\n\n', b"data: [DONE]\n\n"]
    engine.answer = stream(*events)
    head, _, body = answers_to(gateway, post(headers, STREAMED, version="1.0").replace(HOST.encode(), b"")).partition(
        b"\r\n\r\n"
    )
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"transfer-encoding" not in head
    assert b"content-length" not in head
    assert b"\r\nconnection: close" in head
    assert body == b"".join(events)


def test_a_whole_answer_to_an_http10_client_has_its_length(gateway: Gateway) -> None:
    for headers in ("", "connection: keep-alive\r\n"):
        head, _, body = answers_to(gateway, post(headers, BODY, version="1.0")).partition(b"\r\n\r\n")
        assert b"\r\ncontent-length: %d" % len(ANSWER) in head
        assert body == ANSWER
