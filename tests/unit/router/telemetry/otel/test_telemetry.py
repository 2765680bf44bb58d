"""The export against a real collector, a broken one, and none."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import structlog
from structlog.typing import EventDict
from tests.support.otlp import Receiver, until
from tests.support.raw_server import closed_port
from tests.unit.router.support import make_call
from yarl import URL

from lexora_router.config import TelemetryConfig
from lexora_router.telemetry.export import telemetry_of
from lexora_router.telemetry.names import BoundedNames
from lexora_router.telemetry.otel import telemetry as module
from lexora_router.telemetry.otel.telemetry import Telemetry, target_of

Start = Callable[..., Telemetry]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.01)
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.5)


@pytest.fixture(autouse=True)
def _unheard() -> None:
    """The SDK says nothing twice within 20 seconds, not to the next test either."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("opentelemetry"):
            for repeats in logging.getLogger(name).filters:
                vars(repeats).pop("last_log", None)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def start(lines: list[EventDict]) -> Iterator[Start]:
    """Starts exports, and ends those that the test did not."""
    started: list[Telemetry] = []

    def start(address: str, interval: float | None = 3600.0) -> Telemetry:
        config = TelemetryConfig(otlp_endpoint=address, metrics_interval=interval)
        started.append(Telemetry(config, BoundedNames(str, dict), time.monotonic, {}))
        return started[-1]

    yield start
    for telemetry in started:
        telemetry.close()


def serve(telemetry: Telemetry, count: int, **changes: Any) -> None:
    """So many calls, each with one span."""
    for number in range(count):
        call = make_call(id=str(number), started=time.monotonic(), **changes)
        for recorder in telemetry.recorders:
            recorder.begin(call)
        call.receipt.finished_at = time.monotonic()
        for recorder in telemetry.recorders:
            recorder.end(call, 200, None)


def test_the_end_sends_what_is_left_and_the_metrics(receiver: Receiver, start: Start, lines: list[EventDict]) -> None:
    telemetry = start(receiver.address)
    serve(telemetry, 10)
    telemetry.close()
    assert [span.attributes["lexora.request_id"] for span in receiver.spans] == [str(number) for number in range(10)]
    ((_, point),) = receiver.points("gen_ai.server.request.duration")
    assert (point.count, telemetry.spans.exported, lines) == (10, 10, [])


def test_traces_alone(receiver: Receiver, start: Start) -> None:
    telemetry = start(receiver.address, None)
    serve(telemetry, 3)
    telemetry.close()
    assert len(receiver.spans) == 3
    assert len(telemetry.recorders) == 1
    assert receiver.points("gen_ai.server.request.duration") == []


def test_a_variable_that_the_sdk_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    config = TelemetryConfig(otlp_endpoint="http://127.0.0.1:1")
    with pytest.raises(OSError, match=r"OTEL_.*'soon'"):
        telemetry_of(config, BoundedNames(str, dict), time.monotonic)


def test_metrics_come_again_and_again(receiver: Receiver, start: Start) -> None:
    serve(start(receiver.address, 0.01), 1)
    until(lambda: len(receiver.exports), lambda count: count >= 3)


def test_what_is_refused_for_good_is_dropped_and_told_once(receiver: Receiver, start: Start, lines: list[EventDict]) -> None:
    receiver.refuses = grpc.StatusCode.UNAUTHENTICATED
    telemetry = start(receiver.address)
    for total in (5, 10):
        serve(telemetry, 5)
        until(lambda: telemetry.spans.dropped, lambda count, total=total: count == total)  # type: ignore[misc]
    (line,) = lines
    assert (line["event"], line["log_level"], line["endpoint"]) == ("telemetry_failing", "warning", receiver.address)
    assert "UNAUTHENTICATED" in line["reason"]
    assert "as the test wants it" in line["reason"]
    assert telemetry.spans.exported == 0


def test_what_may_pass_is_tried_again(receiver: Receiver, start: Start, lines: list[EventDict]) -> None:
    receiver.refuses = grpc.StatusCode.UNAVAILABLE
    telemetry = start(receiver.address)
    serve(telemetry, 5)
    until(lambda: receiver.asked)
    receiver.refuses = None
    until(lambda: telemetry.spans.exported, lambda count: count == 5)
    until(lambda: lines, lambda lines: [line["event"] for line in lines] == ["telemetry_failing", "telemetry_back"])
    assert (len(receiver.spans), telemetry.spans.dropped) == (5, 0)


@pytest.mark.parametrize("hangs", [False, True], ids=["absent", "hangs"])
def test_a_collector_that_is_not_there_holds_up_no_end(
    hangs: bool, receiver: Receiver, start: Start, lines: list[EventDict]
) -> None:
    receiver.hangs = hangs
    telemetry = start(receiver.address if hangs else f"http://127.0.0.1:{closed_port()}")
    serve(telemetry, 5)
    until(lambda: receiver.asked if hangs else lines)
    serve(telemetry, 1000)
    began = time.monotonic()
    telemetry.close()
    assert time.monotonic() - began < 5
    assert (telemetry.spans.exported, telemetry.spans.dropped) == (0, 1005)
    assert [line["event"] for line in lines] == ["telemetry_failing", "telemetry_dropped"]


def test_what_a_client_s_header_is_worth_is_not_told(receiver: Receiver, start: Start, lines: list[EventDict]) -> None:
    telemetry = start(receiver.address)
    parent = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    serve(telemetry, 1, trace=(parent, ("tracestate", "a=" + "x" * 600 + "," + "?")))
    serve(telemetry, 1, trace=(("traceparent", "0" * 600),))
    until(lambda: receiver.spans, lambda spans: len(spans) == 2)
    assert receiver.spans[0].parent_id == "b7ad6b7169203331"
    assert lines == []


@pytest.mark.parametrize(
    ("endpoint", "target"),
    [
        ("http://collector:4317", "collector:4317"),
        ("http://[::1]:4317", "[::1]:4317"),
        ("http://collector", "collector:80"),
        ("https://collector", "collector:443"),
    ],
)
def test_where_it_goes(endpoint: str, target: str) -> None:
    assert target_of(URL(endpoint)) == target
