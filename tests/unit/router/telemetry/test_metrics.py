import asyncio

from prometheus_client import CollectorRegistry, generate_latest
from tests.support.servers import metric
from tests.unit.router.support import CHAT, make_call

from lexora_contract.answer import Hop, Usage
from lexora_router.call import Call
from lexora_router.errors import NoHealthyEndpoint, QueueFull, RateLimited, UpstreamBroken
from lexora_router.telemetry.account import MAX_MODELS, Account
from lexora_router.telemetry.metrics import Metrics


class Meter:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Account(lambda model: model if model == "m" else "other", Metrics(self.registry))

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


def test_what_did_not_go_straight_is_counted() -> None:
    meter, call = Meter(), finished()
    receipt = call.receipt
    receipt.attempts, receipt.resumed = 4, "token_ids"
    receipt.hops = (Hop("main", "spare", "UPSTREAM_TIMEOUT"), Hop("spare", "last", "QUEUE_FULL"))
    meter.ended(call)
    assert meter.value("lexora_retries_total") == 3
    assert meter.value("lexora_streams_resumed_total") == 1
    # "from" is a keyword, so that it can be no argument's name
    first, second = {"from": "main", "to": "spare"}, {"from": "spare", "to": "last"}
    assert meter.value("lexora_fallbacks_total", **first, reason="UPSTREAM_TIMEOUT") == 1
    assert meter.value("lexora_fallbacks_total", **second, reason="QUEUE_FULL") == 1
    assert meter.value("lexora_tokens_wasted_total") == 0


def test_refusals_are_counted_by_reason() -> None:
    meter = Meter()
    for error in (
        RateLimited("x", 1.0, "user:a"),
        QueueFull("x", 1.0),
        QueueFull("x", 1.0, "deadline"),
        NoHealthyEndpoint("x"),
    ):
        meter.ended(make_call(), error.status, error)
    assert meter.value("lexora_rate_limit_rejections_total") == 1
    for reason in ("rate_limit", "queue_full", "deadline", "no_healthy_endpoint"):
        assert meter.value("lexora_rejections_total", reason=reason) == 1
    assert meter.value("lexora_rejections_total") == 4


def test_tokens_that_nobody_got_a_whole_answer_of_are_wasted() -> None:
    meter, broken = Meter(), make_call()
    broken.receipt.events = 9
    meter.ended(broken, 502, UpstreamBroken("x"))
    meter.ended(finished(), 499, asyncio.CancelledError())
    remade = finished()
    remade.receipt.attempts, remade.receipt.lost_tokens = 2, 3
    meter.ended(remade)
    assert meter.value("lexora_tokens_wasted_total", reason="failed_attempt") == 3
    assert meter.value("lexora_tokens_wasted_total", reason="failed") == 9
    assert meter.value("lexora_tokens_wasted_total", reason="client_left") == 7


def test_the_time_between_tokens_is_a_mean_per_stream() -> None:
    meter = Meter()
    meter.ended(finished())
    call = finished()
    call.receipt.usage = Usage(5, 1)  # nothing lies between one token
    meter.ended(call)
    assert meter.value("lexora_time_per_output_token_seconds_count", model="m") == 1
    assert meter.value("lexora_time_per_output_token_seconds_sum", model="m") == 1.5 / 6


def test_cached_tokens_are_counted() -> None:
    meter, call = Meter(), finished()
    call.receipt.usage = Usage(5, 7, cached_tokens=4)
    meter.ended(call)
    assert meter.value("lexora_tokens_cached_total", model="m") == 4


def test_reloads_may_bring_ever_new_models() -> None:
    registry = CollectorRegistry()
    metrics = Account(str, Metrics(registry))
    for number in range(MAX_MODELS + 50):
        metrics.begin(call := finished(f"model-{number}"))
        metrics.end(call, 200, None)
    text = generate_latest(registry).decode()
    assert metric(text, "lexora_requests_total", model="other") == 50
    assert metric(text, "lexora_time_to_first_token_seconds_count", model="other") == 50
    assert f"model-{MAX_MODELS - 1}" in text
    assert f"model-{MAX_MODELS}" not in text
