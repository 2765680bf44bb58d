"""The stub engine and the load generator, against each other."""

from __future__ import annotations

import http.server
import shutil
import threading
from typing import TYPE_CHECKING

import pytest
from tests.bench import build as build_module
from tests.bench.build import RigError, Tools, build, compiler
from tests.bench.engine import Engine, load

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


def events(body: bytes) -> list[str]:
    return [line.removeprefix("data: ") for line in body.decode().split("\n\n") if line]


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RigError, match=r"no C compiler .* apt install gcc"):
        build(tmp_path)


@needs_cc
def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build_module, "PROGRAMS", {"engine": ("nothing.c",)})
    with pytest.raises(RigError, match=r"nothing\.c"):
        build(tmp_path)


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
