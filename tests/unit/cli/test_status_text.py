import pytest
from google.protobuf.duration_pb2 import Duration
from rich.text import Text

from lexora.v1.health_pb2 import (
    BACKEND_STATUS_HEALTHY,
    BACKEND_STATUS_UNHEALTHY,
    BREAKER_STATE_HALF_OPEN,
    BackendHealth,
    EndpointHealth,
    HealthResponse,
    SharedState,
)
from lexora.v1.reload_pb2 import RELOAD_RESULT_REFUSED, ReloadReport
from lexora.v1.stats_pb2 import CallCounts, Distribution, GetStatsResponse, Latencies
from lexora_cli.status_text import counters, endpoints, headline, latencies


def duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=round(seconds % 1 * 1e9))


def distribution(count: int, p50: float, p90: float, p99: float) -> Distribution:
    return Distribution(count=count, p50=duration(p50), p90=duration(p90), p99=duration(p99))


def shown(lines: list[Text]) -> list[str]:
    """The lines, blanks run together."""
    return [" ".join(line.plain.split()) for line in lines]


@pytest.mark.parametrize(("seconds", "age"), [(0.4, "0 s"), (75, "1 min 15 s"), (3700, "1 h 1 min"), (180_000, "2 d 2 h")])
def test_the_headline(seconds: float, age: str) -> None:
    health = HealthResponse(status=BACKEND_STATUS_HEALTHY, version="1.2", uptime=duration(seconds))
    assert headline(health).plain == f"healthy, version 1.2, up {age}"


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (SharedState(shared=True, replicas=3), ", shares with 2 other replicas"),
        (SharedState(shared=True, replicas=2), ", shares with 1 other replica"),
        (SharedState(replicas=3, reason="gone\x1b"), r", 1/3 of the limits for itself: gone\x1b"),
    ],
)
def test_the_headline_says_what_is_shared(state: SharedState, said: str) -> None:
    assert headline(HealthResponse(status=BACKEND_STATUS_HEALTHY, version="1.2", state=state)).plain.endswith(said)


def test_endpoints_with_their_reasons() -> None:
    sick = EndpointHealth(address="http://a:1", status=BACKEND_STATUS_UNHEALTHY, in_flight=3, reason="[refused]\x1b")
    limited = EndpointHealth(address="http://b:1", status=BACKEND_STATUS_HEALTHY, limit=64, breaker=BREAKER_STATE_HALF_OPEN)
    assert shown(endpoints(HealthResponse(backends={"main": BackendHealth(endpoints=[sick, limited], waiting=5)}))) == [
        "backend endpoint status in flight limit waiting breaker reason",
        r"main http://a:1 unhealthy 3 - 5 unknown [refused]\x1b",
        "main http://b:1 healthy 0 64 half_open",
    ]


def test_percentiles() -> None:
    told = Latencies(ttft=distribution(2, 0.0514, 0.2, 1.234), total=distribution(1500, 0.000251, 1, 20))
    assert shown(latencies(GetStatsResponse(since_start=told, last_five_minutes=told))) == [
        "time within count p50 p90 p99",
        "first token 1 min 0 - - -",
        "5 min 2 51.4 ms 200 ms 1.23 s",
        "start 2 51.4 ms 200 ms 1.23 s",
        "in all 1 min 0 - - -",
        "5 min 1,500 0.251 ms 1 s 20 s",
        "start 1,500 0.251 ms 1 s 20 s",
    ]


def test_the_last_reload() -> None:
    report = ReloadReport(
        result=RELOAD_RESULT_REFUSED, trigger="RELOAD_TRIGGER_FILE", problems=["a", "b"], good_reloads=3, bad_reloads=1
    )
    assert "reload    refused by file (problems: 2); 3 good, 1 refused in all" in counters(GetStatsResponse(last_reload=report))
    assert not any(line.startswith("reload") for line in counters(GetStatsResponse()))


def test_counters() -> None:
    calls = CallCounts(total=1234, tokens_input=9, tokens_cached=4, tokens_output=7)
    stats = GetStatsResponse(calls=calls, success_rate=0.5, by_model={"b": CallCounts(total=1), "a": CallCounts(total=2)})
    stats.wasted_tokens.failed, stats.wasted_tokens.client_left = 2, 3
    lines = list(counters(stats))
    assert lines[0].startswith("calls     1,234 finished")
    assert "success   50.0%" in lines
    assert "tokens    9 in (4 cached), 7 out, 5 wasted" in lines
    assert lines[-1] == "models    a 2, b 1"
