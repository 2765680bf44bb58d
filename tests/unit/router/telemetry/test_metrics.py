import asyncio

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tests.support.servers import metric
from tests.unit.router.backends.engine import make_backend
from tests.unit.router.support import CHAT, make_call

from lexora_router.handler import Call, Usage
from lexora_router.telemetry.metrics import BackendCollector, Metrics


class Meter:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, lambda model: model if model == "m" else "other")

    def ended(self, call: Call, status: int = 200, error: BaseException | None = None) -> None:
        self.metrics.begin(call)
        self.metrics.end(call, status, error)

    def value(self, name: str, **labels: str) -> float:
        return metric(generate_latest(self.registry).decode(), name, **labels)


def finished(model: str = "m", *, stream: bool = True) -> Call:
    call = make_call(model=model, stream=stream)
    call.receipt.first_event_at, call.receipt.finished_at, call.receipt.usage = 0.5, 2.0, Usage(5, 7)
    return call


def test_a_call_fills_each_metric() -> None:
    meter = Meter()
    meter.ended(finished())
    meter.ended(finished(stream=False), 404)
    assert meter.value("lexora_requests_total", endpoint=CHAT, model="m", status="200") == 1
    assert meter.value("lexora_requests_total", endpoint=CHAT, model="m", status="404") == 1
    assert meter.value("lexora_request_duration_seconds_count", endpoint=CHAT) == 2
    assert meter.value("lexora_request_duration_seconds_sum", endpoint=CHAT) == 4.0
    assert meter.value("lexora_time_to_first_token_seconds_count", model="m") == 1
    assert meter.value("lexora_time_to_first_token_seconds_sum", model="m") == 0.5
    assert meter.value("lexora_tokens_input_total", model="m") == 10
    assert meter.value("lexora_tokens_output_total", model="m") == 14
    assert meter.value("lexora_cancelled_requests_total") == 0


def test_calls_under_way_are_shown_and_go_back_to_zero() -> None:
    meter, call = Meter(), finished()
    meter.metrics.begin(call)
    assert meter.value("lexora_active_requests") == 1
    meter.metrics.end(call, 499, asyncio.CancelledError())
    assert meter.value("lexora_active_requests") == 0
    assert meter.value("lexora_cancelled_requests_total", endpoint=CHAT) == 1


def test_a_client_invents_no_label() -> None:
    meter = Meter()
    for number in range(50):
        meter.ended(finished(f"invented-{number}"))
    text = generate_latest(meter.registry).decode()
    assert "invented" not in text
    assert meter.value("lexora_requests_total", model="other") == 50


def test_a_call_that_reached_nothing_has_no_first_token_and_no_tokens() -> None:
    meter, call = Meter(), make_call()
    call.receipt.finished_at = 0.1
    meter.ended(call, 502)
    assert meter.value("lexora_time_to_first_token_seconds_count") == 0
    assert meter.value("lexora_tokens_input_total") == 0


@pytest.mark.parametrize(("states", "value"), [((True, True), 1), ((True, False), 0.5), ((False, False), 0)])
async def test_backends_are_read_when_asked(states: tuple[bool, ...], value: float) -> None:
    backend = make_backend("", urls=["http://e:1", "http://e:2"])
    registry = CollectorRegistry()
    registry.register(BackendCollector({"main": backend}))
    assert "lexora_backend_health{" not in generate_latest(registry).decode()
    for endpoint, state in zip(backend.endpoints, states, strict=True):
        endpoint.healthy = state
    backend.endpoints[1].in_flight = 4
    text = generate_latest(registry).decode()
    assert f'lexora_backend_health{{backend="main"}} {float(value)}' in text
    assert metric(text, "lexora_endpoint_in_flight", backend="main", endpoint="http://e:2") == 4
