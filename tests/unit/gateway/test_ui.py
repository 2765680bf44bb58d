import re
from pathlib import Path

import pytest
from tests.unit.gateway.support import ScriptedRouter, client, failure, make_app

from lexora.v1.health_pb2 import BACKEND_STATUS_DEGRADED, BREAKER_STATE_HALF_OPEN, BackendHealth, EndpointHealth, HealthResponse
from lexora.v1.models_pb2 import ListModelsResponse, Model
from lexora.v1.recent_calls_pb2 import ListRecentCallsResponse, RecentCall
from lexora.v1.stats_pb2 import CallCounts, GetStatsResponse, Interval
from lexora_gateway.static_files import POLICY
from lexora_gateway.ui.page import FILES

PAGES = sorted(path.relative_to(FILES).as_posix() for path in FILES.rglob("*") if path.is_file())


async def test_the_way_to_the_page_is_relative() -> None:
    async with client(make_app(ScriptedRouter())) as http:
        answer = await http.get("/ui")
        assert (answer.status_code, answer.headers["location"]) == (307, "ui/")
        page = await http.get("/ui/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("name", PAGES)
async def test_every_file_is_served_under_the_policy(name: str) -> None:
    async with client(make_app(ScriptedRouter())) as http:
        answer = await http.get(f"/ui/{name}")
    assert answer.status_code == 200
    assert answer.content == (FILES / name).read_bytes()
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_policy_allows_nothing_inline_and_nothing_from_outside() -> None:
    sources = {source for rule in POLICY.split("; ") for source in rule.split()[1:]}
    assert sources == {"'none'", "'self'", "data:"}


@pytest.mark.parametrize("name", [name for name in PAGES if not name.startswith("vendor/")])
def test_no_file_needs_what_the_policy_forbids(name: str) -> None:
    text = Path(FILES / name).read_text()
    assert "innerHTML" not in text
    assert not re.search(r"""(?:src|href|url\(|from|import)\s*[=(]?\s*["']?(?:https?:)?//""", text)
    if name.endswith(".html"):
        assert not re.search(r"\son\w+=|style=|<style|<script(?![^>]*\ssrc=)|javascript:", text)


@pytest.mark.parametrize("path", ["/ui/none.js", "/ui/../app.py", "/ui/%2e%2e/page.py", "/ui/vendor"])
async def test_nothing_else_is_served(path: str) -> None:
    async with client(make_app(ScriptedRouter())) as http:
        answer = await http.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] is not None or answer.json()["error"]["type"]


async def test_the_state_is_one_document() -> None:
    router = ScriptedRouter()
    endpoint = EndpointHealth(address="http://gpu1:8000", breaker=BREAKER_STATE_HALF_OPEN, in_flight=3)
    backend = BackendHealth(status=BACKEND_STATUS_DEGRADED, endpoints=[endpoint], waiting=2)
    router.state = HealthResponse(status=BACKEND_STATUS_DEGRADED, backends={"main": backend}, version="1")
    router.counters = GetStatsResponse(
        calls=CallCounts(total=5), by_model={"m": CallCounts(total=5)}, history=[Interval(total=2)]
    )
    router.models = ListModelsResponse(
        models=[Model(id="m", backend="main", backend_type="BACKEND_TYPE_VLLM", capabilities=["code"])]
    )
    router.recent = ListRecentCallsResponse(
        recent_calls=[RecentCall(request_id="r", status=200, time_to_first_token={"nanos": 500_000_000})]
    )
    async with client(make_app(router)) as http:
        state = (await http.get("/ui/state")).json()
    assert state["health"]["status"] == "degraded"
    assert state["health"]["backends"]["main"]["waiting"] == 2
    (shown,) = state["health"]["backends"]["main"]["endpoints"]
    assert (shown["address"], shown["breaker"], shown["in_flight"], shown["limit"]) == (
        "http://gpu1:8000",
        "half_open",
        3,
        None,
    )
    assert state["stats"]["by_model"]["m"]["total"] == 5
    assert state["stats"]["history"][0]["total"] == 2
    assert state["models"][0]["capabilities"] == ["code"]
    assert (state["calls"][0]["ttft_seconds"], state["calls"][0]["tokens_input"]) == (0.5, None)
    asked = {name for name, *_ in router.asked}
    assert asked == {"get_principal", "health", "get_stats", "list_models", "list_recent_calls"}


async def test_a_router_that_is_away_is_told() -> None:
    router = ScriptedRouter()
    router.state = failure(14, "away")
    async with client(make_app(router)) as http:
        answer = await http.get("/ui/state")
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "away"


async def test_many_who_look_at_once_cost_no_more_than_one() -> None:
    router = ScriptedRouter()
    router.counters = GetStatsResponse(calls=CallCounts(total=1))
    async with client(make_app(router)) as http:
        states = [(await http.get("/ui/state")).json()["stats"]["total_requests"] for _ in range(20)]
    assert states == [1] * 20
    assert [name for name, *_ in router.asked].count("get_stats") <= 2  # a second may have passed
