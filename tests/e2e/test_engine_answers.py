"""What real engines and proxies send that is not quite what their APIs promise: a whole answer stays one, a failure is one."""

import contextlib
import gzip
import json
import socket
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import brotli  # type: ignore[import-untyped]
import httpx
import pytest

from tests.support import wire
from tests.support.captures import exchange
from tests.support.engine import ScriptedEngine, until_closed
from tests.support.raw_server import LAST_CHUNK, RawRequest, chunk, reply, stream, stream_head
from tests.support.servers import Gateway, base_config, calm_config

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
FIRST_TOKEN_SECONDS, IDLE_SECONDS = 1.0, 0.4
MAX_RESPONSE_BYTES = 4 * 1024 * 1024
DONE = b"data: [DONE]\n\n"
HI = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
COUNTED = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"hi"}}\n\n'
STOPPED = (
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}\n\n'
)
MESSAGE_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
PIECE = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"hi"}\n\n'
COMPLETED = b'event: response.completed\ndata: {"type":"response.completed","response":{"status":"completed"}}\n\n'
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
ANSWER = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}'

# The models: at a vLLM server, and at an engine of another make.
VLLM, OTHER = "vllm", "other"


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine(VLLM, OTHER) as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(engine: ScriptedEngine, folder: Path) -> Iterator[Gateway]:
    limits = {"first_token_timeout": FIRST_TOKEN_SECONDS, "idle_timeout": IDLE_SECONDS}
    vllm = {"url": engine.url, "models": [VLLM]} | limits
    other = {"url": engine.url, "models": [OTHER], "type": "openai_compatible"} | limits
    config = calm_config(vllm=vllm, other=other)
    config["server"]["max_response_bytes"] = MAX_RESPONSE_BYTES
    with Gateway(config, folder) as process:
        yield process


@pytest.fixture
def http(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.http, timeout=10, verify=False) as client:
        yield client
    wire.wait_idle(gateway.http)
    assert "Traceback" not in gateway.output


def ask(http: httpx.Client, path: str = CHAT, *, model: str = VLLM, streams: bool = True) -> httpx.Response:
    asked = {"input": "hello"} if path == RESPONSES else {"messages": [{"role": "user", "content": "hello"}]}
    return http.post(path, json={"model": model, "max_tokens": 9, "stream": streams} | asked)


def booked(http: httpx.Client) -> tuple[int, int]:
    """Calls that went well, and calls that failed."""
    stats = http.get("/stats").json()
    return stats["successful_requests"], stats["failed_requests"]


def spread(data: bytes, size: int) -> bytes:
    """A stream in chunks of so many bytes."""
    return stream(*(data[at : at + size] for at in range(0, len(data), size)))


def until_the_end(data: bytes) -> Callable[[socket.socket, RawRequest], None]:
    """A stream that ends with its connection."""

    def answer(connection: socket.socket, _: RawRequest) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + data)

    return answer


# -- the ends of streams

MIXED = HI.replace(b"\n\n", b"\r\n\n") + HI.replace(b"\n\n", b"\n\r\n") + HI.replace(b"\n\n", b"\r\r") + STOP
TORN: dict[str, tuple[str, bytes, bytes]] = {  # path, what the engine sends, what the client gets
    "one newline": (CHAT, HI + DONE[:-1], HI + DONE),
    "no newline": (CHAT, HI + DONE[:-2], HI + DONE),
    "CRLF": (CHAT, (HI + DONE).replace(b"\n", b"\r\n")[:-2], (HI + DONE).replace(b"\n", b"\r\n")[:-2] + b"\n"),
    "CR": (CHAT, (HI + DONE).replace(b"\n", b"\r")[:-1], (HI + DONE).replace(b"\n", b"\r")[:-1] + b"\n\n"),
    "mixed": (CHAT, MIXED + DONE[:-1], MIXED + DONE),
    "messages": (MESSAGES, DELTA + STOPPED + MESSAGE_STOP[:-1], DELTA + STOPPED + MESSAGE_STOP),
    "messages, no newline": (MESSAGES, DELTA + STOPPED + MESSAGE_STOP[:-2], DELTA + STOPPED + MESSAGE_STOP),
    "responses": (RESPONSES, PIECE + COMPLETED[:-1], PIECE + COMPLETED),
    "responses, no newline": (RESPONSES, PIECE + COMPLETED[:-2], PIECE + COMPLETED),
    "a comment": (CHAT, HI + DONE + b": bye", HI + DONE),
}


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("name", TORN)
def test_a_last_event_without_its_empty_line_is_whole(http: httpx.Client, engine: ScriptedEngine, name: str, size: int) -> None:
    path, sent, expected = TORN[name]
    before = booked(http)
    engine.answer = spread(sent, size)
    assert ask(http, path).content == expected
    engine.answer = until_the_end(sent)
    assert ask(http, path).content == expected
    assert booked(http) == (before[0] + 2, before[1])


@pytest.mark.parametrize("sent", [HI + STOP + COUNTED + b'data: {"cho', HI + b"data: [DO", HI + b"data: [DONE", HI + b"dat"])
@pytest.mark.parametrize("model", [VLLM, OTHER])
def test_half_an_event_is_a_broken_stream(http: httpx.Client, engine: ScriptedEngine, model: str, sent: bytes) -> None:
    engine.answer = stream(sent)
    assert json.loads(ask(http, model=model).text.split("data: ")[-1])["error"]["code"] == "upstream_broken"


UNMARKED: dict[str, tuple[str, bytes, bytes]] = {  # path, what the engine sends, the mark that the client gets
    "usage": (CHAT, HI + STOP + COUNTED, DONE),
    "usage without its empty line": (CHAT, HI + STOP + COUNTED[:-1], DONE),
    "no usage": (CHAT, HI + STOP, DONE),
    "messages": (MESSAGES, DELTA + STOPPED, MESSAGE_STOP),
}


@pytest.mark.parametrize("name", UNMARKED)
def test_only_vllm_must_send_the_end_mark(http: httpx.Client, engine: ScriptedEngine, name: str) -> None:
    path, sent, mark = UNMARKED[name]
    engine.answer = stream(sent)
    before = booked(http)
    answer = ask(http, path, model=OTHER).content
    assert answer == sent.replace(COUNTED, b"").replace(COUNTED[:-1], b"") + mark
    assert b"error" in ask(http, path, model=VLLM).content.rpartition(b"data: ")[2]
    assert booked(http) == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize("sent", [HI, HI + COUNTED])
def test_an_answer_without_a_reason_to_end_is_broken_at_any_engine(
    http: httpx.Client, engine: ScriptedEngine, sent: bytes
) -> None:
    engine.answer = stream(sent)
    assert "upstream_broken" in ask(http, model=OTHER).text


@pytest.mark.parametrize("case", ["vllm-faults/worker_sigkill", "vllm-faults/server_sigterm"])
def test_a_killed_vllm_stays_an_error(http: httpx.Client, engine: ScriptedEngine, case: str) -> None:
    """One sends an error event and [DONE], the other "abort" and [DONE], both a whole chunked body."""
    engine.answer = exchange(case).response
    answer = ask(http)
    assert "error" in answer.text.rpartition("data: ")[2]
    assert "[DONE]" not in answer.text


# -- what a body is


@pytest.mark.parametrize(
    "content_type",
    ["Text/Event-Stream", "TEXT/EVENT-STREAM;charset=utf-8", "application/json", "text/plain", "application/octet-stream", ""],
)
@pytest.mark.parametrize("start", [b"", b": ping\n\n", b"\n\n", b"\xef\xbb\xbf", b"retry: 3\n", b"event: chunk\n"])
def test_events_under_any_content_type(http: httpx.Client, engine: ScriptedEngine, content_type: str, start: bytes) -> None:
    kind = f"content-type: {content_type}\r\n" if content_type else ""
    sent = start + HI + STOP + DONE
    engine.answer = (
        f"HTTP/1.1 200 OK\r\n{kind}transfer-encoding: chunked\r\n\r\n".encode() + spread(sent, 3).partition(b"\r\n\r\n")[2]
    )
    answer = ask(http)
    assert (answer.status_code, answer.content) == (200, sent)
    assert answer.headers["content-type"].lower().startswith("text/event-stream")


def test_events_under_another_type_are_not_collected(gateway: Gateway, engine: ScriptedEngine) -> None:
    """The client has the first event while the engine still waits to send the next."""

    def answer(connection: socket.socket, _: RawRequest) -> None:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(HI)
        )
        until_closed(connection)

    engine.answer = answer
    assert first_read(gateway, HI)


def test_json_under_the_type_of_a_stream_is_an_answer(http: httpx.Client, engine: ScriptedEngine) -> None:
    engine.answer = reply(ANSWER, content_type="text/event-stream")
    for streams in (True, False):
        answer = ask(http, streams=streams)
        assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "application/json", ANSWER)


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices":[{"index":0,"logprobs":{"content":[{"token":"a","logprob":-Infinity},{"token":"NaN","logprob":NaN}]},'
        b'"message":{"content":"Infinity \\" NaN"}}],"usage":{"prompt_tokens":3,"completion_tokens":2}}',
        b'\xef\xbb\xbf{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}',
        b'\n\n \r\n\n{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}',
    ],
)
def test_json_as_some_write_it_is_relayed_as_it_is(http: httpx.Client, engine: ScriptedEngine, body: bytes) -> None:
    before = http.get("/stats").json()["total_tokens_output"]
    engine.answer = reply(body)
    answer = ask(http, streams=False)
    assert (answer.status_code, answer.content) == (200, body)
    assert http.get("/stats").json()["total_tokens_output"] - before == 2


def test_not_a_number_in_a_stream(http: httpx.Client, engine: ScriptedEngine) -> None:
    last = STOP.replace(b'"stop"', b'"stop","logprobs":{"content":[{"token":"a","logprob":NaN,"bytes":null}]}')
    engine.answer = stream(HI, last, DONE)
    assert ask(http).content == HI + last + DONE


def test_what_comes_beside_hidden_usage_is_shown(http: httpx.Client, engine: ScriptedEngine) -> None:
    """llama.cpp's server puts its timings there once usage is asked for."""
    engine.answer = exchange("llama-server/chat_stream_usage").response
    events = [json.loads(event[6:]) for event in ask(http, model=OTHER).text.split("\n\n") if event.startswith("data: {")]
    assert not any("usage" in event for event in events)
    [timed] = [event for event in events if "timings" in event]
    assert timed["timings"]["predicted_n"] == 16
    assert timed["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}]


# -- content codings, though none was asked for

CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
    "GZip, br": lambda data: brotli.compress(gzip.compress(data)),
}


@pytest.mark.parametrize("coding", CODINGS)
def test_a_coded_answer_is_read_and_relayed_without(http: httpx.Client, engine: ScriptedEngine, coding: str) -> None:
    encode, header = CODINGS[coding], f"content-encoding: {coding}\r\n"
    counted = ANSWER[:-1] + b',"usage":{"prompt_tokens":3,"completion_tokens":2}}'
    answers = {
        False: (reply(encode(counted), headers=header), counted),
        True: (stream_head(header) + spread(encode(HI + STOP + COUNTED + DONE), 5).partition(b"\r\n\r\n")[2], HI + STOP + DONE),
    }
    before = http.get("/stats").json()["total_tokens_output"]
    for streams, (sent, expected) in answers.items():
        engine.answer = sent
        answer = ask(http, streams=streams)
        assert (answer.status_code, answer.content, "content-encoding" in answer.headers) == (200, expected, False)
    assert engine.last.header("accept-encoding") == "identity"
    assert http.get("/stats").json()["total_tokens_output"] - before == 4
    engine.answer = reply(encode(IN_BAND[0][0]), status="400 Bad Request", headers=header)
    refused = ask(http)
    assert (refused.status_code, refused.content, "content-encoding" in refused.headers) == (400, IN_BAND[0][0], False)


def test_a_coded_stream_is_relayed_as_it_comes(gateway: Gateway, engine: ScriptedEngine) -> None:
    def answer(connection: socket.socket, _: RawRequest) -> None:
        coder = zlib.compressobj(wbits=31)
        begun = coder.compress(HI) + coder.flush(zlib.Z_SYNC_FLUSH)
        connection.sendall(stream_head("content-encoding: gzip\r\n") + chunk(begun))
        until_closed(connection)

    engine.answer = answer
    assert first_read(gateway, HI)


def first_read(gateway: Gateway, event: bytes) -> bool:
    """Ask for a stream, and wait until the client has this event."""
    body = json.dumps({"model": VLLM, "messages": [{"role": "user", "content": "x"}], "stream": True}).encode()
    with wire.connect(gateway.http) as connection:
        connection.settimeout(IDLE_SECONDS)
        connection.sendall(wire.request(CHAT, body))
        got = b""
        while event not in got:
            got += connection.recv(65536)
    return True


UNREADABLE: dict[str, tuple[str, bytes, str]] = {
    "an unknown coding": ("compress", ANSWER, "the content coding `compress`"),
    "other bytes": ("gzip", ANSWER, "is not valid gzip"),
    "half of it": ("gzip", gzip.compress(ANSWER)[:-9], "ends before its gzip does"),
    "a bomb": ("gzip", gzip.compress(bytes(MAX_RESPONSE_BYTES + 1)), f"more than {MAX_RESPONSE_BYTES} bytes"),
    "a bomb in two layers": ("gzip, gzip", gzip.compress(gzip.compress(bytes(100 * MAX_RESPONSE_BYTES))), "more than"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_coded_answer_that_cannot_be_read(http: httpx.Client, engine: ScriptedEngine, name: str) -> None:
    coding, body, words = UNREADABLE[name]
    engine.answer = reply(body, headers=f"content-encoding: {coding}\r\n")
    answer = ask(http, streams=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_invalid")
    assert words in answer.text
    # An error is the engine's own answer: it goes on with its coding.
    engine.answer = reply(body, status="400 Bad Request", headers=f"content-encoding: {coding}\r\n")
    with http.stream("POST", CHAT, json={"model": VLLM, "messages": [{"role": "user", "content": "x"}]}) as refused:
        raw = b"".join(refused.iter_raw())
    assert (refused.status_code, refused.headers["content-encoding"], raw) == (400, coding, body)


def test_a_transcript_need_not_be_read_and_stays_coded(http: httpx.Client, engine: ScriptedEngine) -> None:
    engine.answer = reply(gzip.compress(b"hello"), content_type="text/plain", headers="content-encoding: gzip\r\n")
    answer = http.post("/v1/audio/transcriptions", data={"model": VLLM}, files={"file": b"x"})
    assert (answer.headers["content-encoding"], answer.text) == ("gzip", "hello")


# -- errors in a 200


def failed(error: Any, **fields: Any) -> bytes:
    return json.dumps({"error": error, **fields}).encode()


IN_BAND: list[tuple[bytes, int]] = [
    (failed({"message": "Too long", "type": "BadRequestError", "code": 400}), 400),
    (failed({"message": "No", "code": "401"}), 401),
    (failed({"message": "No", "type": "invalid_request_error", "code": "invalid_api_key"}), 401),
    (failed("Unauthorized"), 401),
    (failed({"message": "Slow down", "code": "rate_limit_exceeded", "type": "requests"}), 429),
    (failed({"code": 8, "message": "Quota", "status": "RESOURCE_EXHAUSTED"}), 429),
    (failed({"message": "EngineCore died", "type": "InternalServerError", "code": 500}), 500),
    (failed({"message": "Busy", "type": "overloaded_error"}, type="error"), 529),
    (failed("CUDA error", error_type="generation"), 500),
    (b'{"object":"error","message":"Too long","type":"BadRequestError","code":400}', 400),
    (failed({"message": "Something"}, choices=[]), 502),
    (failed("CUDA error"), 502),
]


@pytest.mark.parametrize("how", ["unary", "the first event", "JSON where a stream was asked for"])
@pytest.mark.parametrize(("body", "status"), IN_BAND)
def test_an_error_in_a_200_is_what_it_says(
    http: httpx.Client, engine: ScriptedEngine, body: bytes, status: int, how: str
) -> None:
    before = booked(http)
    engine.answer = stream(b"data: " + body + b"\n\n", DONE) if how == "the first event" else reply(body)
    answer = ask(http, streams=how != "unary")
    assert answer.status_code == status
    if status == 502:  # it says nothing of itself, so the gateway does
        assert answer.json()["error"]["code"] == "upstream_broken"
        assert answer.json()["error"]["message"] in ("Something", "CUDA error")
    else:
        assert answer.content == body
    assert booked(http) == (before[0], before[1] + 1)


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":null,"choices":[{"index":0,"message":{"content":"\\"error\\""}}]}',
        b'{"choices":[{"index":0,"message":{"content":"x"},"error":{"code":500}}],"error":{"code":500}}',
        b'{"object":"response","status":"failed","error":{"code":"server_error","message":"x"},"output":[]}',
    ],
)
def test_an_answer_with_an_error_inside_is_an_answer(http: httpx.Client, engine: ScriptedEngine, body: bytes) -> None:
    engine.answer = reply(body)
    answer = ask(http, streams=False)
    assert (answer.status_code, answer.content) == (200, body)


def test_an_error_in_mid_stream_stays_an_event(http: httpx.Client, engine: ScriptedEngine) -> None:
    error = failed({"message": "Busy", "type": "overloaded_error"}, type="error")
    engine.answer = stream(HI, b"data: " + error + b"\n\n", DONE)
    answer = ask(http)
    assert (answer.status_code, answer.content) == (200, HI + b"data: " + error + b"\n\n")


@pytest.fixture(scope="module")
def two(folder: Path) -> Iterator[tuple[Gateway, ScriptedEngine, ScriptedEngine, ScriptedEngine]]:
    """A gateway with retries, the two engines of one pool, and the engine of its fallback."""
    with ScriptedEngine("m") as one, ScriptedEngine("m") as another, ScriptedEngine("f") as last:
        pool = {"urls": [one.url, another.url], "models": ["m"], "fallback_backends": ["last"], "fallback_models": {"m": "f"}}
        config = base_config(main=pool, last={"url": last.url, "models": ["f"]})
        config["health"] |= {"failure_threshold": 1000, "min_calls": 1000, "quarantine": False}  # each call is asked twice
        config["retry"] = {"max_retries": 1, "budget_floor": 1000.0}
        (folder / "two").mkdir()
        with Gateway(config, folder / "two") as process:
            yield process, one, another, last


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(("body", "status"), [case for case in IN_BAND if case[1] != 502])
def test_it_is_retried_and_falls_back_as_that_status_would(
    two: tuple[Gateway, ScriptedEngine, ScriptedEngine, ScriptedEngine], body: bytes, status: int, *, streams: bool
) -> None:
    gateway, *pool, last = two
    last.answer = stream(HI, STOP, DONE) if streams else reply(ANSWER)
    seen = []
    with httpx.Client(base_url=gateway.http, timeout=10, verify=False) as http:
        event = stream(b"data: " + body + b"\n\n", DONE)
        for said in (event if streams else reply(body), reply(body, status=f"{status} Oops")):
            for engine in pool:
                engine.answer = said
            answer = ask(http, model="m", streams=streams)
            how = [answer.headers.get(f"x-lexora-{name}") for name in ("attempts", "fallback")]
            seen.append((answer.status_code, answer.content, *how))
    assert seen[0] == seen[1], "the error inside, and the same as a status"
    assert (status in (400, 401)) == (seen[0][0] == status)


# -- what is no answer

NO_ANSWER: dict[str, bytes] = {
    "status 99": b"HTTP/1.1 99 Odd\r\ncontent-length: 2\r\n\r\n{}",
    "status 000": b"HTTP/1.1 000 Odd\r\ncontent-length: 2\r\n\r\n{}",
    "status 600": b"HTTP/1.1 600 Odd\r\ncontent-length: 2\r\n\r\n{}",
    "status 999": b"HTTP/1.1 999 Odd\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
    "101": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    "101 without a protocol": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "interim answers without end": b"HTTP/1.1 102 Processing\r\nx: y\r\n\r\n" * 10_000,
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "a header without end": b"HTTP/1.1 200 OK\r\nx: " + b"x" * 1_000_000,
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000,
    "no head at all": b'{"choices":[]}',
}


@pytest.mark.parametrize("name", NO_ANSWER)
def test_what_is_no_answer_is_a_bad_gateway(http: httpx.Client, engine: ScriptedEngine, name: str) -> None:
    left = []

    def answer(connection: socket.socket, _: RawRequest) -> None:
        with contextlib.suppress(ConnectionError):
            connection.sendall(NO_ANSWER[name])
        left.append(until_closed(connection))

    engine.answer = answer
    began = time.monotonic()
    refused = ask(http, streams=False)
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_unreachable")
    assert any(word in refused.text for word in ("the status of the answer is", "not HTTP", "more than 64 KiB"))
    wire.wait_until(lambda: left, "the connection is dropped")
    assert left[0] - began < FIRST_TOKEN_SECONDS, "at once, not when a timeout ends it"


@pytest.mark.parametrize("more", [b"0\r\nx-trailer: " + b"x" * 1_000_000, b"5;" + b"x" * 1_000_000])
def test_a_stream_without_an_end_to_its_framing_breaks(http: httpx.Client, engine: ScriptedEngine, more: bytes) -> None:
    def answer(connection: socket.socket, _: RawRequest) -> None:
        with contextlib.suppress(ConnectionError):
            connection.sendall(stream_head() + chunk(HI) + more)
        until_closed(connection)

    engine.answer = answer
    assert "broke in mid-answer: the head, a trailer or a chunk line of the answer has more than 64 KiB." in ask(http).text


# -- before the request is sent


def leaves_in_order(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)
    until_closed(connection)


def leaves_at_once(connection: socket.socket) -> None:
    """What it has not read makes its kernel send a reset behind the answer."""
    connection.close()


@pytest.mark.parametrize("leaves", [leaves_in_order, leaves_at_once])
@pytest.mark.parametrize("status", ["413 Content Too Large", "401 Unauthorized"])
def test_an_engine_that_refuses_a_body_before_it_has_come_is_heard(
    http: httpx.Client, engine: ScriptedEngine, leaves: Callable[[socket.socket], object], status: str
) -> None:
    refusal = b'{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}'

    def answer(connection: socket.socket, _: RawRequest) -> None:
        connection.sendall(reply(refusal, status=status))
        leaves(connection)

    engine.answer, engine.reads_bodies = answer, False
    body = {"model": VLLM, "messages": [{"role": "user", "content": "x" * 8_000_000}]}
    try:
        answers = [http.post(CHAT, json=body) for _ in range(2)]
    finally:
        engine.reads_bodies = True
    assert [(each.status_code, each.content) for each in answers] == [(int(status[:3]), refusal)] * 2
    assert {each.headers["x-lexora-attempts"] for each in answers} == {"1"}


# -- time


def dripping(head: bytes, drops: list[bytes], seconds: float, end: bytes) -> Callable[[socket.socket, RawRequest], None]:
    """One drop after another, so far apart; then the end, or nothing until the peer leaves."""

    def answer(connection: socket.socket, _: RawRequest) -> None:
        connection.sendall(head)
        left = time.monotonic()
        for drop in drops:
            left += seconds
            time.sleep(max(left - time.monotonic(), 0))
            try:
                connection.sendall(chunk(drop))
            except OSError:
                return
        if end:
            connection.sendall(end)
        else:
            until_closed(connection)

    return answer


def test_blank_lines_keep_a_slow_answer_alive(http: httpx.Client, engine: ScriptedEngine) -> None:
    """DeepSeek sends them while a call waits: longer here than a first token may take."""
    drops = [b"\n"] * 12
    engine.answer = dripping(JSON_HEAD, drops, IDLE_SECONDS / 4, chunk(ANSWER) + LAST_CHUNK)
    answer = ask(http, streams=False)
    assert (answer.status_code, answer.content) == (200, b"".join(drops) + ANSWER)


@pytest.mark.parametrize(
    ("streams", "script", "words"),
    [
        (True, (stream_head(), [b": ping\n\n"] * 40, 0.1), r"no token within 1 s (first_token_timeout)"),
        (True, (stream_head(), [], 0.0), "sent nothing for 1 s (first_token_timeout)"),
        (True, (stream_head(), [HI], 0.0), "fell silent for 0.4 s in mid-answer (idle_timeout)"),
        (False, (JSON_HEAD, [b"\n", b"\n", b"{"], 0.05), "fell silent for 0.4 s after 3 bytes of its answer (idle_timeout)"),
        (False, (JSON_HEAD, [], 0.0), "sent nothing for 1 s (first_token_timeout)"),
    ],
)
def test_a_timeout_says_which_and_what_was_seen(
    http: httpx.Client, engine: ScriptedEngine, script: tuple[bytes, list[bytes], float], words: str, *, streams: bool
) -> None:
    engine.answer = dripping(*script, b"")
    answer = ask(http, streams=streams)
    assert words in answer.text
    if "no token" in words:
        assert " comments, but no token" in answer.text
