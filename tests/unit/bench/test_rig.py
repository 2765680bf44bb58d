"""The stub engine and the load generator, against each other."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.bench import build as build_module
from tests.bench.build import RigError, Tools, build, compiler
from tests.bench.cases import LEAVING
from tests.bench.engine import Engine, get, load, post
from tests.bench.procs import tree, wait_for
from tests.bench.procs_net import listening_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

needs_cc = pytest.mark.skipif(compiler() is None, reason="no C compiler on this machine (cc, gcc, clang)")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    if compiler() is None:
        pytest.skip("no C compiler on this machine (cc, gcc, clang)")
    return build(tmp_path_factory.mktemp("rig"))


@pytest.fixture
def engine(tools: Tools) -> Iterator[Engine]:
    with Engine(tools) as running:
        yield running


def chat(model: str, **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}


def events(body: bytes) -> list[str]:
    return [line.removeprefix("data: ") for line in body.decode().split("\n\n") if line]


@needs_cc
def test_programs_are_compiled_once(tools: Tools) -> None:
    before = tools.engine.stat().st_mtime_ns
    assert build(tools.engine.parents[1]) == tools
    assert tools.engine.stat().st_mtime_ns == before
    assert {file.name for file in tools.engine.parent.iterdir()} == {"engine", "load"}


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RigError, match=r"no C compiler .* apt install gcc"):
        build(tmp_path)


@needs_cc
def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build_module, "PROGRAMS", {"engine": ("nothing.c",)})
    with pytest.raises(RigError, match=r"nothing\.c"):
        build(tmp_path)


def test_the_engine_ends_with_its_block(tools: Tools) -> None:
    with Engine(tools) as engine:
        assert listening_ports(tree(engine.pid)) == [engine.port]
    assert engine.process.poll() is not None
    with pytest.raises(ConnectionRefusedError):
        get(engine.port, "/health")


def test_the_engine_answers_like_a_vllm_server(engine: Engine) -> None:
    assert get(engine.port, "/health") == (200, b"")
    models = json.loads(get(engine.port, "/v1/models")[1])
    assert models["data"][0]["owned_by"] == "vllm"
    assert b"vllm:num_requests_running{" in get(engine.port, "/metrics")[1]
    assert get(engine.port, "/nothing") == (404, b'{"detail":"Not Found"}')
    status, body = post(engine.port, "/v1/chat/completions", {"messages": []})
    assert status == 400
    assert json.loads(body)["error"]["param"] == "model"
    status, body = post(engine.port, "/v1/chat/completions", chat("bench-8-0-5"))
    answer = json.loads(body)
    assert (status, answer["model"], answer["choices"][0]["finish_reason"]) == (200, "bench-8-0-5", "stop")


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_has_the_events_it_was_asked_for(engine: Engine, usage: bool) -> None:
    body = chat("bench-5-1", stream=True, stream_options={"include_usage": usage})
    asked = time.monotonic_ns()
    *frames, done = events(post(engine.port, "/v1/chat/completions", body)[1])
    assert done == "[DONE]"
    chunks = [json.loads(frame) for frame in frames]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    if usage:
        assert chunks.pop()["usage"]["completion_tokens"] == 5
    stamps = [int(chunk["choices"][0]["delta"]["content"]) for chunk in chunks[1:]]
    assert len(stamps) == 5
    assert asked < stamps[0]
    assert stamps == sorted(stamps)
    assert stamps[-1] - asked >= 4_000_000  # 5 tokens, 1 ms apart
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[1:]] == [None] * 4 + ["length"]


def test_unary_load_counts_what_the_engine_counts(tools: Tools, engine: Engine) -> None:
    result = load(tools, engine.port, "--connections", 4, "--seconds", 0.2)
    assert result["errors"] == {}
    stats = engine.stats()
    assert result["ok"] == result["issued"] == stats["unary"] > 100
    assert result["latency_us"]["n"] == result["ok"]
    assert 0 < result["latency_us"]["p50"] <= result["latency_us"]["p99"] <= result["latency_us"]["max"]
    assert stats["accepted"] == 5  # keep-alive: the four connections, and this question


def test_streamed_load_counts_what_the_engine_counts(tools: Tools, engine: Engine) -> None:
    options = ("--stream", "--usage", "--tokens", 20, "--model", "bench-20-1", "--connections", 10, "--count", 30)
    result = load(tools, engine.port, *options, "--ramp", 20)
    assert result["errors"] == {}
    assert (result["ok"], result["chunks"]) == (30, 600)
    stats = engine.stats()
    assert (stats["streams"], stats["finished"], stats["chunks"], stats["aborted"]) == (30, 30, 600, 0)
    assert result["ttft_us"]["n"] == 30
    assert result["gap_us"]["n"] == 30 * 19
    assert result["lag_us"]["n"] == 600
    assert result["latency_us"]["p50"] >= 19_000  # 20 tokens, 1 ms apart


def test_clients_that_leave_are_seen_as_aborts(tools: Tools, engine: Engine) -> None:
    options = [word if word != "bench-300-100" else "bench-300-1" for word in LEAVING]
    assert load(tools, engine.port, *options)["hung_up"] == 20
    assert wait_for(lambda: engine.stats()["aborted"] == 20, 20)
    assert engine.settle(1)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (("--stream", "--tokens", 7), "chunk_count"),
        (("--path", "/nothing"), "bad_status"),
        (("--path", "/health"), "bad_status"),
        (("--model", "bench-4-0", "--stream", "--tokens", 4, "--path", "/v1/models"), "bad_status"),
    ],
)
def test_wrong_answers_are_counted_by_kind(tools: Tools, engine: Engine, options: tuple[str | int, ...], kind: str) -> None:
    result = load(tools, engine.port, "--model", "bench-8-0", "--count", 3, *options)
    assert result["ok"] == 0
    assert result["errors"] == {kind: 3}
    assert result["first_error"].startswith(kind)


def test_what_is_left_at_the_limit_is_unfinished(tools: Tools, engine: Engine) -> None:
    result = load(tools, engine.port, "--model", "bench-1-0-5000", "--connections", 2, "--count", 2, "--limit", 0.1)
    assert result["errors"] == {"unfinished": 2}


TOKEN = 'data: {"choices":[{"delta":{"content":"x"},"finish_reason":%s}]}\n\n'
GOOD = TOKEN % "null" + TOKEN % '"stop"' + "data: [DONE]\n\n"
USAGE = 'data: {"choices":[],"usage":{"total_tokens":1}}\n\n'
STAMPED = 'data: {"choices":[{"delta":{"content":" %d"},"finish_reason":"stop"}]}\n\n'


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (GOOD, None),
        (GOOD.replace("\n", "\r\n"), None),
        (TOKEN % "null" + TOKEN % '"stop"', "no_done"),
        (TOKEN % "null" * 2 + "data: [DONE]\n\n", "no_finish"),
        (GOOD.replace("data: [DONE]", USAGE + "data: [DONE]"), "usage"),
        (GOOD + TOKEN % "null", "after_done"),
        (TOKEN % "null" + 'data: {"error":{"message":"died"}}\n\n', "error_event"),
        ("<html>\n" + GOOD, "body"),
        (STAMPED % 9 + STAMPED % 7 + "data: [DONE]\n\n", "order"),
    ],
)
def test_each_flaw_of_a_stream_is_named(tools: Tools, body: str, kind: str | None) -> None:
    """Served by a server of the standard library, so that the engine cannot hide a mistake of the load generator."""

    class Flawed(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            raw = body.encode()
            for piece in (raw[:13], raw[13:50], raw[50:]):  # events are cut anywhere
                self.wfile.write(b"%X;note=1\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\nx-trailer: 1\r\n\r\n")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Flawed) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            result = load(tools, server.server_address[1], "--stream", "--tokens", 2, "--count", 2)
        finally:
            server.shutdown()
            thread.join()
    assert result["errors"] == ({kind: 2} if kind else {})
    assert result["ok"] == (0 if kind else 2)
