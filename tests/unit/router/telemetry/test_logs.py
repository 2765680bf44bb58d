import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from tests.unit.router.support import CHAT, make_call

from lexora_contract.answer import Hop, Usage
from lexora_router.call import Call
from lexora_router.errors import InvalidRequest, ModelNotFound, QueueFull
from lexora_router.telemetry.account import CallRecord
from lexora_router.telemetry.logs import AccessLog, configure_logs

FIELDS = {
    "request_id": "call-1",
    "path": CHAT,
    "model": "m",
    "backend": "main",
    "endpoint": "http://e:1",
    "status": 200,
    "stream": True,
    "tenant": "anonymous",
    "priority": 50,
    "queue_ms": 1.5,
    "ttft_ms": 20.0,
    "total_ms": 300.0,
    "tokens_in": 5,
    "tokens_out": 7,
    "attempts": 1,
    "retries": 0,
    "event": "call",
    "level": "info",
}


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging is the whole process's: leave it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    noisy = {name: logging.getLogger(name).level for name in ("asyncio", "aiohttp", "grpc", "httpx", "httpcore", "uvicorn")}
    root.handlers = []
    yield
    root.handlers = handlers
    root.setLevel(level)
    for name, before in noisy.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()
    AccessLog.lines = None


def finished(**changes: Any) -> Call:
    call = make_call(**({"started": 10.0, "priority": 50} | changes))
    receipt = call.receipt
    receipt.backend, receipt.endpoint, receipt.attempts, receipt.usage = "main", "http://e:1", 1, Usage(5, 7)
    receipt.dispatched_at, receipt.first_event_at, receipt.finished_at = 10.0015, 10.02, 10.3
    return call


def lines(*ends: tuple[Call, int, BaseException | None], style: str = "json", level: str = "INFO") -> list[str]:
    stream = io.StringIO()
    writer = configure_logs(level, style, stream)
    log = AccessLog()
    for call, status, error in ends:
        log.end(CallRecord(call, status, error, "m"))
    writer.close()
    return stream.getvalue().splitlines()


def test_a_finished_call_is_one_line_with_all_its_fields() -> None:
    [line] = lines((finished(), 200, None))
    seen = json.loads(line)
    assert seen.pop("timestamp").endswith("Z")
    assert seen == FIELDS


def test_what_did_not_go_straight_is_told() -> None:
    call = finished(priority=100)
    call.receipt.attempts, call.receipt.resumed, call.receipt.hops = 3, "text", (Hop("main", "spare", "QUEUE_FULL"),)
    [line] = lines((call, 200, None))
    seen = json.loads(line)
    assert (seen["priority"], seen["attempts"], seen["retries"], seen["resumed"]) == (100, 3, 2, "text")
    assert seen["fallback"] == "main->spare;reason=QUEUE_FULL"
    assert not {"rejected", "tokens_wasted", "tokens_cached"} & set(seen)


def test_tokens_for_nothing_are_told_in_all() -> None:
    call = finished()
    call.receipt.attempts, call.receipt.lost_tokens, call.receipt.usage = 2, 3, Usage(5, 7, cached_tokens=4)
    well, left = lines((call, 200, None), (call, 499, asyncio.CancelledError()))
    assert (json.loads(well)["tokens_wasted"], json.loads(left)["tokens_wasted"]) == (3, 10)
    assert json.loads(well)["tokens_cached"] == 4


def test_a_refused_call_says_why() -> None:
    [line] = lines((make_call(), 429, QueueFull("The queue is full.", 1.0, "queue_timeout")))
    seen = json.loads(line)
    assert (seen["rejected"], seen["error"], seen["attempts"], seen["retries"]) == ("queue_timeout", "QUEUE_FULL", 0, 0)


def test_a_call_that_reached_nothing_has_no_times() -> None:
    [line] = lines((make_call(user="team-a"), 404, ModelNotFound("m")))
    seen = json.loads(line)
    assert (seen["queue_ms"], seen["ttft_ms"], seen["tokens_in"]) == (None, None, None)
    assert (seen["error"], seen["tenant"], seen["status"]) == ("MODEL_NOT_FOUND", "team-a", 404)
    assert seen["detail"].startswith("The model `m` does not exist")


def test_a_call_with_a_trace_says_which() -> None:
    trace = (("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),)
    ends = [(finished(trace=each), 200, None) for each in (trace, (("traceparent", "x"),))]
    with_trace, without = map(json.loads, lines(*ends))
    assert with_trace["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert "trace_id" not in without


def test_a_bug_is_an_error_and_its_text_is_not_told_here() -> None:
    [line] = lines((finished(), 500, ZeroDivisionError("text")))
    seen = json.loads(line)
    assert (seen["level"], seen["error"], seen["status"]) == ("error", "INTERNAL", 500)
    assert "text" not in line


@pytest.mark.parametrize("style", ["json", "console"])
def test_neither_prompt_nor_line_breaks_get_into_the_log(style: str) -> None:
    for sign in ("\x1b", "\x7f", "\x9b", "\u202e"):  # of which JSON itself escapes the first only
        call = finished(model=f"a\nfake line {sign}[31m", body=b'{"messages":"a secret prompt"}', user="u\r\nv")
        [line] = lines((call, 200, None), style=style)
        assert "secret" not in line
        assert sign not in line


def test_console_lines_have_the_same_fields() -> None:
    [line] = lines((finished(), 200, None), style="console")
    for name, value in FIELDS.items():
        if name not in ("event", "level"):
            assert f"{name}={value}" in line


def test_the_level_is_kept() -> None:
    assert lines((finished(), 200, None), level="WARNING") == []


def test_the_standard_library_s_loggers_end_up_in_the_same_place() -> None:
    stream = io.StringIO()
    writer = configure_logs("INFO", "json", stream)
    logging.getLogger("somebody").info("said %s", "this")
    logging.getLogger("uvicorn.access").info("chatter")
    writer.close()
    [line] = stream.getvalue().splitlines()
    assert json.loads(line)["event"] == "said this"


def test_a_line_is_one_write_so_that_none_is_cut_when_lines_are_dropped() -> None:
    class Writes(io.StringIO):
        def __init__(self) -> None:
            super().__init__()
            self.flushed = 0

    stream = Writes()
    writer = configure_logs("INFO", "json", stream)
    writer.close()  # the thread is gone: lines stay in the queue
    AccessLog().end(CallRecord(finished(), 200, None, "m"))
    [line] = writer._lines
    assert line.endswith("}\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("style", "kind"), [("json", io.StringIO), ("console", io.StringIO), ("console", Terminal)])
def test_the_line_of_a_call_is_as_structlog_writes_it(
    style: str, kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lexora_router.telemetry.logs._timestamp", lambda: "2026-01-02T03:04:05.000006Z")
    monkeypatch.delenv("NO_COLOR", raising=False)
    texts = [
        "",
        "m",
        "a b",
        "a=b",
        "it's",
        'a "b"',
        "tab\t",
        "two\r\nlines",
        "\x1b[31m",
        "caf\u00e9\u3000\u202e",
        "back\\slash",
        "100%s",
    ]
    models = [finished(model=text, user=text, priority=priority) for priority, text in enumerate(texts)]
    cached, named = finished(), finished(account="acme", user="alice")
    cached.receipt.usage = named.receipt.usage = Usage(5, 7, cached_tokens=4)
    calls = [*models, finished(stream=False), cached, named, finished(account="acme")]
    ends: list[tuple[Call, int, BaseException | None]] = [(call, 200, None) for call in calls]
    ends += [(finished(), 400, InvalidRequest(f"a {text} b")) for text in texts] + [(finished(), 500, ZeroDivisionError())]
    written = []
    for direct in (True, False):
        stream = kind()
        writer = configure_logs("INFO", style, stream)
        if not direct:
            monkeypatch.setattr(AccessLog, "lines", None)
        for call, status, error in ends:
            AccessLog().end(CallRecord(call, status, error, "m"))
        writer.close()
        written.append(stream.getvalue())
    assert written[0] == written[1]
    assert written[0].count("\n") == len(ends)
    assert ("\x1b[" in written[0]) == (kind is Terminal)
