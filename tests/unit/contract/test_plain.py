import json

from lexora.v1.errors_pb2 import ERROR_REASON_QUEUE_FULL, ErrorReason
from lexora.v1.health_pb2 import (
    BACKEND_STATUS_HEALTHY,
    BREAKER_STATE_HALF_OPEN,
    BackendHealth,
    BreakerState,
    EndpointHealth,
    HealthResponse,
)
from lexora.v1.models_pb2 import BackendType
from lexora.v1.recent_calls_pb2 import RecentCall
from lexora.v1.stats_pb2 import CallCounts, GetStatsResponse
from lexora_contract.enums import value, word
from lexora_contract.plain import plain, stats_plain

HOP = {"from_backend": "main", "to_backend": "b", "reason": ERROR_REASON_QUEUE_FULL}


def test_maps_lists_enums_and_durations() -> None:
    endpoint = EndpointHealth(address="http://a", status=BACKEND_STATUS_HEALTHY, in_flight=2)
    health = HealthResponse(version="1", backends={"main": BackendHealth(endpoints=[endpoint])}, uptime={"nanos": 500_000_000})
    data = plain(health)
    assert (data["status"], data["uptime_seconds"]) == ("unknown", 0.5)
    [found] = data["backends"]["main"]["endpoints"]
    assert {"address": "http://a", "status": "healthy", "in_flight": 2, "reason": "", "limit": None}.items() <= found.items()


def test_a_recent_call_keeps_the_form_that_http_has() -> None:
    call = plain(RecentCall(error=ERROR_REASON_QUEUE_FULL, hops=[HOP, HOP], finish_time={"seconds": 5, "nanos": 7_000_000}))
    assert (call["error"], call["resumed"], call["finished_unix_ms"], call["queue_seconds"]) == ("QUEUE_FULL", "", 5007, None)
    assert call["fallback"] == "main->b;reason=QUEUE_FULL, main->b;reason=QUEUE_FULL"
    assert plain(RecentCall(resume_method=99))["resumed"] == "unknown"  # type: ignore[arg-type]  # open enums carry any number


def test_large_numbers_stay_numbers_and_maps_are_sorted() -> None:
    counts = {"b": CallCounts(total=2), "a": CallCounts(total=1)}
    data = stats_plain(GetStatsResponse(calls=CallCounts(total=2**60), by_model=counts))
    assert (data["total_requests"], data["failed_requests"], data["last_minute"]) == (2**60, 0, None)
    assert list(data["requests_per_model"].items()) == [("a", 1), ("b", 2)]
    json.dumps(data)


def test_words_and_values_of_enums() -> None:
    assert word(BreakerState, BREAKER_STATE_HALF_OPEN) == word(BreakerState.DESCRIPTOR, BREAKER_STATE_HALF_OPEN) == "half_open"
    assert [word(BreakerState, number) for number in (0, 99)] == ["unknown", "unknown"]
    assert value(ErrorReason, "QUEUE_FULL") == ERROR_REASON_QUEUE_FULL
    assert value(BackendType, "of tomorrow") == 0
