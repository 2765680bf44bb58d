import io

import pytest
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from lexora.v1.health_pb2 import (
    BACKEND_STATUS_HEALTHY,
    BACKEND_STATUS_UNHEALTHY,
    BREAKER_STATE_CLOSED,
    BREAKER_STATE_OPEN,
    BackendHealth,
    EndpointHealth,
    HealthResponse,
)
from lexora.v1.receipt_pb2 import Hop
from lexora.v1.recent_calls_pb2 import ListRecentCallsResponse, RecentCall
from lexora.v1.stats_pb2 import CallCounts, Distribution, GetStatsResponse, Interval, Latencies
from lexora_cli.top_screen import Seen, picture


def duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=round(seconds % 1 * 1e9))


HOP = Hop(from_backend="a", to_backend="b", reason="ERROR_REASON_QUEUE_FULL")
GPU1 = EndpointHealth(
    address="http://gpu1:8000", status=BACKEND_STATUS_HEALTHY, in_flight=32, limit=64, breaker=BREAKER_STATE_CLOSED
)
GPU2 = EndpointHealth(
    address="http://gpu2:8000", status=BACKEND_STATUS_UNHEALTHY, limit=64, breaker=BREAKER_STATE_OPEN, reason="refused"
)
HEALTH = HealthResponse(
    status=BACKEND_STATUS_HEALTHY,
    version="1.2.3",
    uptime=duration(65),
    backends={"main": BackendHealth(status=BACKEND_STATUS_HEALTHY, endpoints=[GPU1, GPU2], waiting=7)},
)
TTFT = Distribution(count=9, p50=duration(0.05), p90=duration(0.5), p99=duration(5))
HISTORY = [
    Interval(length=duration(10), total=10 * at, failed=at, tokens_output=1000 * at, latencies=Latencies(ttft=TTFT))
    for at in range(1, 9)
]
STATS = GetStatsResponse(
    active_calls=32,
    waiting={"main": 7},
    last_minute=Latencies(ttft=TTFT),
    history=[*HISTORY, Interval(length=duration(1), total=10_000)],
    by_model={"small": CallCounts(total=1), "big": CallCounts(total=900, failed=3, tokens_output=12_345)},
)
CALLS = [
    RecentCall(request_id=str(at), model=f"model-{at}", status=200, total_time=duration(1), attempts=1) for at in range(100)
]


def drawn(seen: Seen, *, height: int | None = None, trouble: str = "", width: int = 140) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height or 50, color_system=None)
    console.print(picture(seen, "127.0.0.1:50051", height=height, width=width, trouble=trouble))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def seen(*calls: RecentCall) -> Seen:
    return Seen(HEALTH, STATS, ListRecentCallsResponse(recent_calls=calls))


def line(lines: list[str], *words: str) -> str:
    (found,) = [each for each in lines if all(word in each for word in words)]
    return found


def test_the_headline() -> None:
    assert drawn(seen())[0] == "lexora top 127.0.0.1:50051  healthy, version 1.2.3, up 1 min 5 s"


def test_rates_are_of_whole_intervals_and_of_the_last_minute() -> None:
    # Intervals 3 to 8 are the last six whole ones: 330 calls in a minute.
    rates = line(drawn(seen()), "requests/s")
    assert "requests/s 5.5 ▂▃▄▅▅▆▇█" in rates
    assert "tokens/s 550 " in rates
    assert line(drawn(seen()), "under way") == "under way 32   waiting 7   failed/s 0.6"  # 33 in a minute


def test_latencies_have_three_quantiles_and_three_spans() -> None:
    assert line(drawn(seen()), "first token", "/").split("  ")[0] == "first token"
    assert "50 ms / 500 ms / 5 s" in line(drawn(seen()), "first token", "/")
    assert line(drawn(seen()), "between pieces").split()[2:] == ["-", "-", "-"]


def test_every_endpoint_has_a_line_and_its_backend_is_named_once() -> None:
    lines = drawn(seen())
    assert line(lines, "gpu1").split()[:4] == ["main", "http://gpu1:8000", "healthy", "█████░░░░░"]
    assert "32/64" in line(lines, "gpu1")
    assert line(lines, "gpu2").split() == ["http://gpu2:8000", "unhealthy", "░░░░░░░░░░", "0/64", "open", "-", "-", "refused"]


def test_models_are_ordered_by_calls() -> None:
    lines = drawn(seen())
    big, small = line(lines, "big"), line(lines, "small")
    assert lines.index(big) < lines.index(small)
    assert big.split() == ["big", "900", "3", "0", "0", "12,345"]


def test_in_80_columns_only_reasons_are_cut() -> None:
    lines = drawn(seen(RecentCall(model="m", backend="b", status=502, attempts=3, hops=[HOP] * 2)), width=80, height=24)
    assert max(map(len, lines)) <= 80
    assert [each for each in lines if "…" in each] == [line(lines, "502")]
    assert line(lines, "p50 /").split()[5:] == ["1", "min", "since", "start"]
    assert line(lines, "gpu2").split() == ["gpu2:8000", "unhealthy", "0/64", "open", "refused"]


def test_without_a_width_nothing_is_cut() -> None:
    text = picture(seen(RecentCall(status=502, hops=[HOP] * 40)), "127.0.0.1:50051")
    assert line(text.plain.splitlines(), "502").endswith(", ".join(["a->b;reason=QUEUE_FULL"] * 40))
    assert not any(each.endswith(" ") for each in text.plain.splitlines())


@pytest.mark.parametrize("height", [24, 30, 50])
def test_calls_fill_the_screen_and_no_more(height: int) -> None:
    lines = drawn(seen(*CALLS), height=height)
    assert len(lines) <= height
    assert any("model-0" in each for each in lines)
    assert len(lines) >= height - 1


def test_a_call_with_a_history() -> None:
    call = RecentCall(
        model="m",
        backend="b",
        status=502,
        error="ERROR_REASON_UPSTREAM_BROKEN",
        attempts=3,
        hops=[HOP],
        time_to_first_token=duration(0.5),
    )
    shown = line(drawn(seen(call)), "502")
    assert "500 ms" in shown
    assert "UPSTREAM_BROKEN, 3 attempts, a->b;reason=QUEUE_FULL" in shown


def test_names_do_not_move_the_cursor_and_are_no_markup() -> None:
    shown = "\n".join(drawn(seen(RecentCall(model="\x1b[2J[red]evil", status=200))))
    assert "\x1b" not in shown
    assert "[2J[red]evil" in shown


def test_trouble_is_in_the_first_line() -> None:
    assert "no router answers" in drawn(seen(), trouble="no router answers")[0]


def test_a_router_that_has_done_nothing() -> None:
    text = picture(Seen(HealthResponse(), GetStatsResponse(), ListRecentCallsResponse()), "r")
    assert "requests/s 0   tokens/s 0   TTFT p50 -" in text.plain.splitlines()
