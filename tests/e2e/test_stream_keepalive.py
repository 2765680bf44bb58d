"""`server.stream_keepalive`: no silence of a stream is longer, and what is not a stream is left alone."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import wire
from tests.support.engine import ScriptedEngine
from tests.support.process import Process
from tests.support.raw_server import LAST_CHUNK, RawRequest, chunk, reply, stream, stream_head
from tests.support.servers import LEXORA, Gateway, asgi_server, calm_config, plain

SECONDS = 0.15
COMMENT = b": keepalive\n\n"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
FORM = "multipart/form-data; boundary=x"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
MESSAGES = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"hi"}}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
RESPONSES = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"hi"}\n\n'
COMPLETED = b'event: response.completed\ndata: {"type":"response.completed","response":{}}\n\n'
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("m") as engine:
        yield engine


@pytest.fixture(scope="module")
def router(engine: ScriptedEngine, folder: Path) -> Iterator[Gateway]:
    config = calm_config(main={"url": engine.url})
    config["server"]["stream_keepalive"] = SECONDS
    with Gateway(config, folder) as process:
        yield process


@pytest.fixture(scope="module", params=["one process", "two processes", "an ASGI server"])
def base(router: Gateway, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of the HTTP side, in the router's process or in one of its own."""
    if request.param == "one process":
        yield router.http
        return
    if request.param == "an ASGI server":
        with asgi_server(router.grpc, str(SECONDS)) as (base, _):
            yield base
        return
    command = [*LEXORA, "gateway", "--router", router.grpc, "--config", str(router.config_file), "--port", "0"]
    with Process(command) as process:
        ready = plain(process.wait_ready(r".*\bserving\b.*").group(0))
        yield re.search(r'http(?:=|":")(http://[^\s"]+)', ready).group(1)  # type: ignore[union-attr]
        assert "Traceback" not in process.output


class SlowEngine:
    """Answers in steps, each of which waits for `go_on`."""

    def __init__(self, *steps: bytes) -> None:
        self.steps = steps
        self.go_on = threading.Semaphore(0)

    def __call__(self, connection: socket.socket, _: RawRequest) -> None:
        for step in self.steps:
            assert self.go_on.acquire(timeout=10)
            connection.sendall(step)


def asked(path: str, body: bytes, content_type: str = "application/json") -> bytes:
    return wire.request(path, body, headers={"content-type": content_type, "connection": "close"})


def read_until(connection: socket.socket, mark: bytes, times: int = 1) -> bytes:
    """What comes until `mark` came so many times; fails at the end of the connection."""
    got = b""
    while got.count(mark) < times:
        piece = connection.recv(65536)
        assert piece, got
        got += piece
    return got


def rest_of(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def dechunked(data: bytes) -> bytes:
    """A body without the framing of its chunks."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        body, data = body + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return body


def form(stream_field: str) -> bytes:
    fields = {"model": "m", "stream": stream_field}
    parts = [f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
    file = '--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--x--\r\n'
    return "".join([*parts, file]).encode()


# The request, what fills its silences, and an event and the end of its dialect.
STREAMS: dict[str, tuple[bytes, bytes, bytes, bytes]] = {
    "chat": (asked(CHAT, b'{"model":"m","stream":true,"messages":[]}'), COMMENT, EVENT, DONE),
    "escaped": (asked(CHAT, b'{"model":"m","str\\u0065am":true,"messages":[]}'), COMMENT, EVENT, DONE),
    "completion": (asked("/v1/completions", b'{"model":"m","stream":true,"prompt":"x"}'), COMMENT, EVENT, DONE),
    "messages": (asked("/v1/messages", b'{"model":"m","stream":true,"messages":[],"max_tokens":1}'), PING, MESSAGES, STOP),
    "responses": (asked("/v1/responses", b'{"model":"m","stream":true,"input":"x"}'), COMMENT, RESPONSES, COMPLETED),
    "form": (asked("/v1/audio/transcriptions", form("true"), FORM), COMMENT, EVENT, DONE),
    "short": (asked("/chat", b'{"model":"m","stream":true,"message":"x"}'), COMMENT, EVENT, DONE),
}


@pytest.mark.parametrize("case", STREAMS)
def test_every_silence_is_filled(base: str, engine: ScriptedEngine, case: str) -> None:
    request, filler, event, end = STREAMS[case]
    engine.answer = slow = SlowEngine(stream_head() + chunk(event), chunk(event), chunk(end) + LAST_CHUNK)
    with wire.connect(base) as connection:
        began = time.monotonic()
        connection.sendall(request)
        got = read_until(connection, filler)
        assert time.monotonic() - began > 0.9 * SECONDS  # the loop's clock is exact to a few ms
        head = got.partition(b"\r\n\r\n")[0].lower()
        assert head.startswith(b"http/1.1 200 ")
        assert b"content-type: text/event-stream" in head
        assert b"x-request-id: " in head
        got += read_until(connection, filler)
        slow.go_on.release()
        got += read_until(connection, b"hi")
        # A silence between two events is one as well.
        got += read_until(connection, filler, 2)
        slow.go_on.release(2)
        got += rest_of(connection)
    body = dechunked(got.partition(b"\r\n\r\n")[2])
    assert body.count(filler) >= 4
    short = b'data: {"response":"hi"}\n\n'
    assert body.replace(filler, b"") == (short + short + DONE if case == "short" else event + event + end)


@pytest.mark.parametrize(
    "request_",
    [
        asked(CHAT, b'{"model":"m","messages":[{"role":"user","content":"a \\"stream\\": true"}]}'),
        asked(CHAT, b'{"model":"m","stream":false,"messages":[]}'),
        asked("/v1/audio/transcriptions", form("false"), FORM),
        asked("/v1/embeddings", b'{"model":"m","stream":true,"input":"x"}'),
    ],
)
def test_what_does_not_stream_is_left_alone(base: str, engine: ScriptedEngine, request_: bytes) -> None:
    whole = reply(b'{"error":{"message":"slow"}}', status="400 Bad Request")
    engine.answer = slow = SlowEngine(whole)
    with wire.connect(base) as connection:
        connection.sendall(request_)
        connection.settimeout(3 * SECONDS)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(wire.DEADLINE_SECONDS)
        slow.go_on.release()
        assert rest_of(connection).startswith(b"HTTP/1.1 400 ")


LATE = {
    "a refusal": (
        reply(b'{"error":{"message":"too long","code":7}}', status="400 Bad Request"),
        '{"error":{"message":"too long","code":7}}',
    ),
    "no JSON": (reply(b"<html>", status="404 Not Found", content_type="text/html"), '"type":"api_error"'),
    "torn JSON": (reply(b'{"error":{"message":"too', status="400 Bad Request"), '"type":"api_error"'),
    "nothing": (b"", '"code":"upstream_unreachable"'),
    "a whole answer": (reply(b'{"object":"chat.completion","choices":[]}'), '"code":"upstream_invalid"'),
}


@pytest.mark.parametrize("case", LATE)
def test_a_late_failure_is_an_event(base: str, engine: ScriptedEngine, router: Gateway, case: str) -> None:
    answer, expected = LATE[case]
    engine.answer = slow = SlowEngine(answer)
    with wire.connect(base) as connection:
        connection.sendall(STREAMS["chat"][0])
        got = read_until(connection, COMMENT)
        slow.go_on.release()
        got += rest_of(connection)
    body = dechunked(got.partition(b"\r\n\r\n")[2])
    last = body.removesuffix(b"\n\n").rpartition(b"\n\n")[2].decode()
    assert last.startswith("data: ")
    assert expected in last
    assert "error" in json.loads(last.removeprefix("data: "))
    wire.wait_idle(router.http)


def test_a_failure_in_time_is_a_status(base: str, engine: ScriptedEngine) -> None:
    engine.answer = reply(b'{"error":{}}', status="400 Bad Request")
    assert wire.exchange(base, STREAMS["chat"][0]).status == 400
    assert wire.exchange(base, asked(CHAT, b'{"model":"m","stream":true}')).status == 400


def test_a_client_that_leaves_during_the_silence_takes_its_call_along(
    base: str, engine: ScriptedEngine, router: Gateway
) -> None:
    engine.answer = slow = SlowEngine(stream(EVENT, DONE))
    with wire.connect(base) as connection:
        connection.sendall(STREAMS["chat"][0])
        read_until(connection, COMMENT)
    wire.wait_idle(router.http)
    slow.go_on.release()
    assert "Traceback" not in router.output
