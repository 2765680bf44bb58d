import pytest
from rich.text import Text

from lexora.v1.health_pb2 import (
    BACKEND_STATUS_HEALTHY,
    BACKEND_STATUS_UNHEALTHY,
    BREAKER_STATE_HALF_OPEN,
    BackendHealth,
    EndpointHealth,
    HealthResponse,
)
from lexora.v1.reload_pb2 import RELOAD_RESULT_REFUSED, ReloadReport
from lexora.v1.stats_pb2 import Distribution, GetStatsResponse, Latencies
from lexora_cli.status_text import counters, endpoints, headline, latencies


def shown(lines: list[Text]) -> list[str]:
    """The lines, blanks run together."""
    return [" ".join(line.plain.split()) for line in lines]


@pytest.mark.parametrize(("seconds", "age"), [(0.4, "0 s"), (75, "1 min 15 s"), (3700, "1 h 1 min"), (180_000, "2 d 2 h")])
def test_the_headline(seconds: float, age: str) -> None:
    health = HealthResponse(status=BACKEND_STATUS_HEALTHY, version="1.2", uptime_seconds=seconds)
    assert headline(health).plain == f"healthy, version 1.2, up {age}"


def test_endpoints_with_their_reasons() -> None:
    sick = EndpointHealth(address="http://a:1", status=BACKEND_STATUS_UNHEALTHY, in_flight=3, reason="[refused]\x1b")
    limited = EndpointHealth(address="http://b:1", status=BACKEND_STATUS_HEALTHY, limit=64, breaker=BREAKER_STATE_HALF_OPEN)
    assert shown(endpoints(HealthResponse(backends={"main": BackendHealth(endpoints=[sick, limited], waiting=5)}))) == [
        "backend endpoint status in flight limit waiting breaker reason",
        r"main http://a:1 unhealthy 3 - 5 unknown [refused]\x1b",
        "main http://b:1 healthy 0 64 half_open",
    ]


def test_percentiles() -> None:
    told = Latencies(
        ttft=Distribution(count=2, p50=0.0514, p90=0.2, p99=1.234), total=Distribution(count=1500, p50=0.000251, p90=1, p99=20)
    )
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
    report = ReloadReport(result=RELOAD_RESULT_REFUSED, trigger="file", problems=["a", "b"], good_reloads=3, bad_reloads=1)
    assert "reload    refused by file (problems: 2); 3 good, 1 refused in all" in counters(GetStatsResponse(last_reload=report))
    assert not any(line.startswith("reload") for line in counters(GetStatsResponse()))


def test_counters() -> None:
    stats = GetStatsResponse(total_requests=1234, success_rate=0.5, requests_per_model={"b": 1, "a": 2})
    stats.total_tokens_input, stats.total_tokens_cached, stats.total_tokens_output = 9, 4, 7
    stats.tokens_wasted.update({"failed": 2, "client_left": 3})
    lines = list(counters(stats))
    assert lines[0].startswith("calls     1,234 finished")
    assert "success   50.0%" in lines
    assert "tokens    9 in (4 cached), 7 out, 5 wasted" in lines
    assert lines[-1] == "models    a 2, b 1"
