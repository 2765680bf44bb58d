"""The exporter against a real collector, a broken one, and none."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import structlog
from tests.support.otlp import Receiver, until
from tests.support.raw_server import closed_port

from lexora_router.telemetry.otel import exporter as module
from lexora_router.telemetry.otel.encode import CLIENT, SpanRecord, TraceRequest, metrics_request, resource
from lexora_router.telemetry.otel.exporter import Collector, Exporter

WHO = resource({"service.name": "test"})
IDS = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "")


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.01)
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(module, "LONGEST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.5)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def start() -> Iterator[Callable[..., Exporter]]:
    """Starts exporters, and ends them."""
    started: list[Exporter] = []

    def start(address: str, interval: float = 3600.0) -> Exporter:
        exporter = Exporter(Collector(address, {}), TraceRequest(WHO).of, lambda: metrics_request(WHO, []), interval)
        exporter.start()
        started.append(exporter)
        return exporter

    yield start
    for exporter in started:
        exporter.close()


def span(name: str = "x", length: int = 0) -> bytes:
    record = SpanRecord(name, CLIENT, IDS, 1, 2)
    record.put({"text": "x" * length})
    return record.framed()


def add(exporter: Exporter, count: int, length: int = 0) -> None:
    for number in range(count):
        exporter.add(lambda name=str(number): span(name, length))  # type: ignore[misc]  # a default binds


def test_spans_arrive_in_their_order(receiver: Receiver, start: Callable[..., Exporter]) -> None:
    exporter = start(receiver.address)
    add(exporter, 1000)
    until(lambda: exporter.exported, lambda count: count == 1000)
    assert [seen.name for seen in receiver.spans] == [str(number) for number in range(1000)]
    assert exporter.dropped == 0


def test_large_spans_travel_in_several_requests(receiver: Receiver, start: Callable[..., Exporter]) -> None:
    exporter = start(receiver.address)
    add(exporter, 100, 100_000)
    until(lambda: exporter.exported, lambda count: count == 100)
    assert receiver.asked >= 8


def test_close_sends_what_is_left_and_the_metrics(receiver: Receiver, start: Callable[..., Exporter]) -> None:
    exporter = start(receiver.address)
    add(exporter, 10)
    exporter.close()
    assert (len(receiver.spans), len(receiver.exports)) == (10, 1)
    exporter.close()


def test_metrics_come_again_and_again(receiver: Receiver, start: Callable[..., Exporter]) -> None:
    start(receiver.address, 0.01)
    until(lambda: len(receiver.exports), lambda count: count >= 3)


def test_what_is_refused_for_good_is_dropped_and_told_once(receiver: Receiver, start: Callable[..., Exporter]) -> None:
    receiver.refuses = grpc.StatusCode.UNAUTHENTICATED
    with structlog.testing.capture_logs() as lines:
        exporter = start(receiver.address)
        for total in (5, 10):
            add(exporter, 5)
            until(lambda: exporter.dropped, lambda count, total=total: count == total)  # type: ignore[misc]
    (line,) = lines
    assert (line["event"], line["log_level"], line["reason"]) == (
        "telemetry_failing", "warning", "UNAUTHENTICATED: as the test wants it"
    )  # fmt: skip
    assert exporter.exported == 0


def test_what_may_pass_is_tried_again(receiver: Receiver, start: Callable[..., Exporter]) -> None:
    receiver.refuses = grpc.StatusCode.UNAVAILABLE
    with structlog.testing.capture_logs() as lines:
        exporter = start(receiver.address)
        add(exporter, 5)
        until(lambda: receiver.asked, lambda count: count >= 3)
        receiver.refuses = None
        until(lambda: exporter.exported, lambda count: count == 5)
    assert [line["event"] for line in lines] == ["telemetry_failing", "telemetry_back"]
    assert (len(receiver.spans), exporter.dropped) == (5, 0)


def test_spans_that_the_collector_rejects_are_counted(receiver: Receiver, start: Callable[..., Exporter]) -> None:
    receiver.rejects = 2
    exporter = start(receiver.address)
    add(exporter, 5)
    until(lambda: exporter.exported + exporter.dropped, lambda count: count == 5)
    assert exporter.dropped == 2


def test_without_a_collector_nothing_waits(start: Callable[..., Exporter]) -> None:
    with structlog.testing.capture_logs() as lines:
        exporter = start(f"http://127.0.0.1:{closed_port()}")
        add(exporter, 5)
        until(lambda: lines)
        began = time.monotonic()
        exporter.close()
        assert time.monotonic() - began < 5
    assert exporter.dropped == 5
    assert [line["event"] for line in lines] == ["telemetry_failing", "telemetry_dropped"]


def test_a_collector_that_hangs_holds_up_no_end(receiver: Receiver, start: Callable[..., Exporter]) -> None:
    receiver.hangs = True
    exporter = start(receiver.address)
    add(exporter, 5)
    until(lambda: receiver.asked)
    began = time.monotonic()
    exporter.close()
    assert time.monotonic() - began < 5


def test_the_queue_is_bounded(receiver: Receiver, start: Callable[..., Exporter], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED_BYTES", 10_000)
    receiver.refuses = grpc.StatusCode.UNAVAILABLE
    exporter, made = start(receiver.address), list[Any]()

    def make() -> bytes:
        made.append(span(length=1000))
        return bytes(made[-1])

    for _ in range(100):
        exporter.add(make)
    assert (len(made), exporter.dropped) == (10, 90)
    receiver.refuses = None
    until(lambda: exporter.exported, lambda count: count == 10)
    exporter.add(make)
    until(lambda: exporter.exported, lambda count: count == 11)


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
    assert module.target_of(endpoint) == target
