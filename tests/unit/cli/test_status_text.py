import io

import pytest
from rich.console import Console

from lexora.v1.models_pb2 import BACKEND_STATUS_HEALTHY, BACKEND_STATUS_UNHEALTHY, BackendHealth, EndpointHealth, HealthResponse
from lexora.v1.reload_pb2 import RELOAD_RESULT_REFUSED, ReloadReport
from lexora.v1.stats_pb2 import GetStatsResponse
from lexora_cli.status_text import counters, endpoints, headline


@pytest.mark.parametrize(("seconds", "age"), [(0.4, "0 s"), (75, "1 min 15 s"), (3700, "1 h 1 min"), (180_000, "2 d 2 h")])
def test_the_headline(seconds: float, age: str) -> None:
    health = HealthResponse(status=BACKEND_STATUS_HEALTHY, version="1.2", uptime_seconds=seconds)
    assert headline(health).plain == f"healthy, version 1.2, up {age}"


def test_endpoints_with_their_reasons() -> None:
    sick = EndpointHealth(address="http://a:1", status=BACKEND_STATUS_UNHEALTHY, in_flight=3, reason="[refused]\x1b")
    screen = io.StringIO()
    table = endpoints(HealthResponse(backends={"main": BackendHealth(endpoints=[sick])}))
    Console(file=screen, width=120).print(table)
    assert screen.getvalue().splitlines()[1].split() == ["main", "http://a:1", "unhealthy", "3", "[refused]"]


def test_the_last_reload() -> None:
    report = ReloadReport(result=RELOAD_RESULT_REFUSED, trigger="file", problems=["a", "b"], good_reloads=3, bad_reloads=1)
    assert "reload    refused by file (2 problems); 3 good, 1 refused in all" in counters(GetStatsResponse(last_reload=report))
    assert not any(line.startswith("reload") for line in counters(GetStatsResponse()))


def test_counters() -> None:
    stats = GetStatsResponse(total_requests=1234, success_rate=0.5, requests_per_model={"b": 1, "a": 2})
    lines = list(counters(stats))
    assert lines[0].startswith("calls     1,234 finished")
    assert "success   50.0%" in lines
    assert lines[-1] == "models    a 2, b 1"
