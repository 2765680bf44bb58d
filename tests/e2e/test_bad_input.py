"""Whatever a client or an engine sends, the answer is clear, and nothing is left behind."""

import json
import re
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import wire
from tests.support.engine import ScriptedEngine
from tests.support.raw_server import chunk, reply, stream_head
from tests.support.servers import Gateway, calm_config

CHAT = "/v1/chat/completions"
LIMIT = 1 << 20
# What the kernel of either side may hold of a body that nobody reads.
KERNEL_BYTES = 24 << 20
GOOD = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
ANSWER = reply(b'{"object":"chat.completion","choices":[]}')


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("m") as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(engine: ScriptedEngine, folder: Path) -> Iterator[Gateway]:
    config = calm_config(main={"url": engine.url, "idle_timeout": 0.5})
    config["server"]["max_body_bytes"] = LIMIT
    with Gateway(config, folder) as process:
        yield process


@pytest.fixture(autouse=True)
def nothing_is_left(gateway: Gateway, engine: ScriptedEngine) -> Iterator[None]:
    engine.answer = ANSWER
    engine.requests.clear()
    yield
    wire.wait_idle(gateway.http)
    # The probe and the listing keep one each, calls one at most: they came one after the other.
    wire.wait_until(lambda: engine.connections <= 3, f"{engine.connections} connections to be closed")
    engine.answer = ANSWER
    assert wire.post(gateway.http, CHAT, GOOD).status == 200
    assert "Traceback" not in gateway.output


def error_of(answer: wire.Response) -> dict[str, Any]:
    """OpenAI's error object, checked for its shape."""
    body = json.loads(answer.body)
    assert set(body) == {"error"}
    error = dict(body["error"])
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert answer.header("content-type") == "application/json"
    assert answer.header("x-request-id") or answer.status in (400, 431)
    return error


def with_field(name: str, value: str) -> bytes:
    return GOOD[:-1] + f',"{name}":{value}}}'.encode()


DEEP = "[" * 10_000 + "]" * 10_000
BAD_BODIES: dict[str, tuple[bytes, str | None]] = {
    "malformed": (b'{"model":"m","messages":[', None),
    "trailing comma": (b'{"model":"m","messages":[],}', None),
    "two values": (GOOD + GOOD, None),
    "not JSON at all": (b"model=m&messages=hi", None),
    "NaN": (with_field("temperature", "NaN"), None),
    "not UTF-8": (b'{"model":"m","messages":[{"role":"user","content":"\xff\xfe"}]}', None),
    "latin-1": ('{"model":"m","messages":[{"role":"user","content":"caf\u00e9"}]}'.encode("latin-1"), None),
    "UTF-16": (GOOD.decode().encode("utf-16"), None),
    "half a surrogate": (b'{"model":"m","messages":[],"user":"\\ud83e"}', None),
    "a NUL byte": (GOOD + b"\x00", None),
    "empty": (b"", "body"),
    "blank": (b" \n ", None),
    "an array": (b"[1,2]", None),
    "a string": (b'"hello"', None),
    "null": (b"null", None),
    "deep messages": (b'{"model":"m","messages":' + DEEP.encode() + b"}", None),
    "deep unknown field": (with_field("x", DEEP), None),
    "deep unclosed": (with_field("x", "[" * 10_000)[:-1], None),
    "deep objects": (with_field("x", '{"a":' * 10_000 + "1" + "}" * 10_000), None),
    "no model": (b'{"messages":[]}', "model"),
    "null model": (b'{"model":null,"messages":[]}', "model"),
    "empty model": (b'{"model":"","messages":[]}', "model"),
    "numeric model": (b'{"model":7,"messages":[]}', "model"),
    "long model": (b'{"model":"%b","messages":[]}' % (b"m" * 2000), "model"),
    "no messages": (b'{"model":"m"}', "messages"),
    "null messages": (b'{"model":"m","messages":null}', "messages"),
    "text messages": (b'{"model":"m","messages":"hi"}', "messages"),
    "object messages": (b'{"model":"m","messages":{}}', "messages"),
    "text stream": (with_field("stream", '"maybe"'), "stream"),
    "numeric stream": (with_field("stream", "2"), "stream"),
    "text max_tokens": (with_field("max_tokens", '"ten"'), "max_tokens"),
    "fractional max_tokens": (with_field("max_tokens", "1.5"), "max_tokens"),
    "array max_completion_tokens": (with_field("max_completion_tokens", "[1]"), "max_completion_tokens"),
    "text n": (with_field("n", '"two"'), "n"),
    "numeric user": (with_field("user", "7"), "user"),
    "text priority": (with_field("priority", '"high"'), "priority"),
    "text stream_options": (with_field("stream_options", '"usage"'), "stream_options"),
    "text include_usage": (with_field("stream_options", '{"include_usage":"maybe"}'), "stream_options.include_usage"),
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_a_bad_body_is_400_and_never_reaches_the_engine(gateway: Gateway, engine: ScriptedEngine, case: str) -> None:
    body, param = BAD_BODIES[case]
    answer = wire.post(gateway.http, CHAT, body)
    error = error_of(answer)
    assert (answer.status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert not engine.requests


MISSING = {
    "/v1/completions": ("prompt", b'{"model":"m"}'),
    "/v1/embeddings": ("input", b'{"model":"m"}'),
    "/v1/responses": ("input", b'{"model":"m"}'),
    "/generate": ("prompt", b"{}"),
    "/chat": ("messages", b"{}"),
}


@pytest.mark.parametrize("path", MISSING)
def test_a_missing_field_is_named(gateway: Gateway, path: str) -> None:
    param, body = MISSING[path]
    answer = wire.post(gateway.http, path, body)
    assert (answer.status, error_of(answer)["param"]) == (400, param)


def test_a_missing_field_is_named_in_the_shape_of_its_api(gateway: Gateway) -> None:
    answer = wire.post(gateway.http, "/v1/messages", b'{"model":"m"}')
    body = json.loads(answer.body)
    assert (answer.status, body["type"]) == (400, "error")
    assert body["error"] == {"type": "invalid_request_error", "message": "messages is missing"}


BAD_FORMS = {
    "no boundary": ("multipart/form-data", b"x"),
    "no parts": ("multipart/form-data; boundary=b", b"hello"),
    "not closed": ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm'),
    "empty": ("multipart/form-data; boundary=b", b""),
    "JSON": ("application/json", GOOD),
    "many parts": (
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n' * 300 + b"--b--\r\n",
    ),
}


@pytest.mark.parametrize("case", BAD_FORMS)
def test_a_bad_form_is_400(gateway: Gateway, engine: ScriptedEngine, case: str) -> None:
    content_type, body = BAD_FORMS[case]
    answer = wire.post(gateway.http, "/v1/audio/transcriptions", body, {"content-type": content_type})
    assert answer.status == 400
    error_of(answer)
    assert not engine.requests


def test_an_unknown_path_is_404(gateway: Gateway, engine: ScriptedEngine) -> None:
    for path in ("/v1/nope", "/v1/chat/completions/", "//v1/chat/completions", "/v1/../sleep", "/%2e%2e/metrics", "/v1"):
        answer = wire.post(gateway.http, path, GOOD)
        assert (answer.status, error_of(answer)["code"]) == (404, "not_found"), path
    assert not engine.requests


# -- size


def test_a_line_of_1_mb_passes(gateway: Gateway, engine: ScriptedEngine) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"%b"}]}' % (b"x" * (LIMIT - 100))
    assert wire.post(gateway.http, CHAT, body).status == 200
    assert engine.last.body == body


@pytest.mark.parametrize("name", ["x-long", "authorization", "x-request-id", "content-type"])
def test_a_header_of_1_mb_is_431(gateway: Gateway, engine: ScriptedEngine, name: str) -> None:
    answer = wire.exchange(gateway.http, wire.request(CHAT, GOOD, headers={name: "x" * LIMIT}))
    assert (answer.status, error_of(answer)["code"]) == (431, "request_head_too_large")
    assert not engine.requests


def test_a_path_of_1_mb_is_431(gateway: Gateway) -> None:
    assert wire.exchange(gateway.http, wire.request("/" + "x" * LIMIT, GOOD)).status == 431


def test_a_request_that_is_no_http_is_400(gateway: Gateway) -> None:
    for data in (b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10, b"POST / HTTP/9\r\n\r\n"):
        answer = wire.exchange(gateway.http, data)
        assert answer.status == 400
        error_of(answer)


def test_a_declared_length_over_the_limit_is_413_before_any_of_it_is_sent(gateway: Gateway) -> None:
    answer = wire.exchange(gateway.http, wire.request(CHAT, headers={"content-length": str(LIMIT + 1)}))
    assert (answer.status, error_of(answer)["code"]) == (413, "request_too_large")
    assert answer.header("connection") == "close"


def test_a_body_at_the_limit_passes(gateway: Gateway, engine: ScriptedEngine) -> None:
    assert wire.post(gateway.http, CHAT, GOOD.ljust(LIMIT)).status == 200
    assert len(engine.last.body) == LIMIT


def test_a_chunked_body_over_the_limit_is_413_at_the_first_byte_over(gateway: Gateway, engine: ScriptedEngine) -> None:
    head = wire.request(CHAT, headers={"content-length": "", "transfer-encoding": "chunked"})
    with wire.connect(gateway.http) as connection:
        connection.sendall(head + chunk(b" " * LIMIT))
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(wire.DEADLINE_SECONDS)
        connection.sendall(chunk(b" "))
        assert wire.read_response(connection).status == 413
    assert not engine.requests


@pytest.mark.parametrize("declared", [True, False])
def test_a_client_that_goes_on_sending_is_cut_off(gateway: Gateway, declared: bool) -> None:
    length = {"content-length": str(1 << 40)} if declared else {"content-length": "", "transfer-encoding": "chunked"}
    before = rss(gateway)
    with wire.connect(gateway.http) as connection:
        connection.sendall(wire.request(CHAT, headers=length))
        data = b" " * 65536
        sent = flood(connection, data if declared else chunk(data), until_answer=True)
        assert sent <= LIMIT + KERNEL_BYTES
        assert wire.read_response(connection).status == 413
        # What comes after the answer is thrown away for a while, because a client must be able to read it; then it ends.
        flood(connection, data if declared else chunk(data), until_answer=False)
    assert rss(gateway) - before < 8 << 20


def flood(connection: socket.socket, piece: bytes, *, until_answer: bool) -> int:
    """Send until the answer is there, or until the other side closes; bytes sent. Fails when neither happens."""
    sent = 0
    for _ in range((1 << 30) // len(piece)):
        if until_answer and _readable(connection):
            return sent
        try:
            connection.sendall(piece)
        except OSError:
            return sent
        sent += len(piece)
    raise AssertionError(f"{sent} bytes were taken")


def _readable(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


def rss(gateway: Gateway) -> int:
    """Resident memory of the gateway, bytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{gateway.pid}/status").read_text())
    assert found
    return int(found.group(1)) * 1024


def test_a_flood_of_bad_input_costs_no_memory(gateway: Gateway) -> None:
    def flood_once() -> None:
        for body, _ in BAD_BODIES.values():
            wire.post(gateway.http, CHAT, body)
        for content_type, body in BAD_FORMS.values():
            wire.post(gateway.http, "/v1/audio/transcriptions", body, {"content-type": content_type})
        wire.exchange(gateway.http, wire.request(CHAT, GOOD, headers={"x-long": "x" * LIMIT}))
        wire.exchange(gateway.http, wire.request(CHAT, headers={"content-length": str(LIMIT + 1)}))

    for _ in range(3):
        flood_once()
    before = rss(gateway)
    for _ in range(15):
        flood_once()
    assert rss(gateway) - before < 4 << 20


# -- engines


def test_an_endless_answer_is_cut_off(gateway: Gateway, engine: ScriptedEngine) -> None:
    event = b"data: " + b"x" * 65536

    def endless(connection: socket.socket, _: object) -> None:
        connection.sendall(stream_head())
        for _ in range(1000):
            connection.sendall(chunk(event))

    engine.answer = endless
    before = rss(gateway)
    answer = wire.post(gateway.http, CHAT, with_field("stream", "true"))
    assert answer.status == 502
    assert rss(gateway) - before < 96 << 20
