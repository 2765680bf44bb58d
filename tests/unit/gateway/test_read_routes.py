import json
from typing import Any

import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from tests.unit.gateway.support import JSON, ScriptedRouter, client, failure, make_app

from lexora.v1 import health_pb2
from lexora.v1.classify_pb2 import ClassifyResponse, ModelScore
from lexora.v1.health_pb2 import BREAKER_STATE_OPEN, BackendHealth, HealthResponse
from lexora.v1.models_pb2 import ListModelsResponse, Model
from lexora.v1.recent_calls_pb2 import ListRecentCallsResponse, RecentCall
from lexora.v1.reload_pb2 import RELOAD_RESULT_REFUSED, ReloadReport
from lexora.v1.stats_pb2 import CallCounts, Distribution, EndpointLoad, GetStatsResponse, Interval, Latencies
from lexora_gateway.openai.examples import RECENT, STATS

HALF = {"nanos": 500_000_000}
UNREACHABLE = failure(14, "The gateway cannot reach its router; try again shortly.")
OWN = {"id": "x", "object": "model", "created": 5, "owned_by": "vllm", "root": "/m", "max_model_len": 4096}


def listing() -> ListModelsResponse:
    return ListModelsResponse(
        models=[
            Model(
                id="org/big",
                backend="main",
                backend_type="BACKEND_TYPE_VLLM",
                capabilities=["code", "general"],
                description="Big.",
                max_model_len=4096,
                status=health_pb2.BACKEND_STATUS_HEALTHY,
                upstream_json=json.dumps(OWN),
            ),
            Model(id="fast", backend="main", alias_of="org/big", max_model_len=4096),
            Model(id="gpt", backend="cloud", backend_type="BACKEND_TYPE_OPENAI_COMPATIBLE", upstream_json="broken"),
        ],
        available_capabilities=["code", "general"],
        default_model_for_unknown_task="org/big",
    )


async def get(router: ScriptedRouter, path: str, **headers: str) -> Any:
    async with client(make_app(router)) as http:
        return await http.get(path, headers=headers)


async def test_models_keep_the_backends_entry_and_gain_a_backend() -> None:
    router = ScriptedRouter()
    router.models = listing()
    response = await get(router, "/v1/models", **{"x-request-id": "r"})
    made = {"object": "model", "created": 0, "owned_by": "main", "max_model_len": 4096, "backend": "main"}
    assert response.json() == {
        "object": "list",
        "data": [
            OWN | {"id": "org/big", "backend": "main"},
            {"id": "fast"} | made,
            {"id": "gpt", "object": "model", "created": 0, "owned_by": "cloud", "backend": "cloud"},
        ],
    }
    assert response.headers["x-request-id"] == "r"
    assert router.asked[0][2].timeout == 10


async def test_one_model_by_a_name_with_a_slash() -> None:
    router = ScriptedRouter()
    router.models = listing()
    assert (await get(router, "/v1/models/org/big")).json()["root"] == "/m"
    assert (await get(router, "/v1/models/org%2Fbig")).json()["id"] == "org/big"


async def test_a_model_that_is_not_listed() -> None:
    response = await get(ScriptedRouter(), "/v1/models/nope")
    assert response.status_code == 404
    assert response.json()["error"] == {
        "message": "The model `nope` does not exist.",
        "type": "not_found_error",
        "param": "model",
        "code": "model_not_found",
    }


async def test_capabilities() -> None:
    router = ScriptedRouter()
    router.models = listing()
    body = (await get(router, "/v1/models/capabilities")).json()
    assert body["models"][0] == {
        "id": "org/big",
        "backend": "main",
        "backend_type": "vllm",
        "capabilities": ["code", "general"],
        "description": "Big.",
        "max_model_len": 4096,
        "status": "healthy",
    }
    assert (body["models"][2]["max_model_len"], body["models"][2]["status"]) == (None, "unknown")
    assert body["available_capabilities"] == ["code", "general"]
    assert body["default_model_for_unknown_task"] == "org/big"


HEALTH = [
    (health_pb2.BACKEND_STATUS_HEALTHY, "healthy", 200),
    (health_pb2.BACKEND_STATUS_DEGRADED, "degraded", 200),
    (health_pb2.BACKEND_STATUS_UNSPECIFIED, "degraded", 200),
    (health_pb2.BACKEND_STATUS_UNHEALTHY, "unhealthy", 503),
]


@pytest.mark.parametrize(("status", "name", "code"), HEALTH)
async def test_health(status: Any, name: str, code: int) -> None:
    router = ScriptedRouter()
    backends = {"b": BackendHealth(status=status), "a": BackendHealth(status=health_pb2.BACKEND_STATUS_HEALTHY)}
    router.state = HealthResponse(status=status, backends=backends)
    response = await get(router, "/health")
    own = "unknown" if status == health_pb2.BACKEND_STATUS_UNSPECIFIED else name
    assert response.status_code == code
    assert response.json() == {"status": name, "backends": {"a": "healthy", "b": own}, "version": "1.2.3", "auth": "off"}
    assert (await get(router, "/health/ready")).status_code == code
    assert (await get(router, "/health/live")).status_code == 200


async def test_health_without_a_router() -> None:
    router = ScriptedRouter()
    router.state = UNREACHABLE
    response = await get(router, "/health")
    assert (response.status_code, response.json()["status"]) == (503, "unhealthy")
    assert (await get(router, "/health/ready")).status_code == 503
    assert (await get(router, "/health/live")).json() == {"status": "alive"}


async def test_a_failed_list_is_a_status() -> None:
    router = ScriptedRouter()
    router.models = UNREACHABLE
    response = await get(router, "/v1/models", **{"x-request-id": "r"})
    assert response.status_code == 503
    assert response.json()["error"]["message"] == str(UNREACHABLE)
    assert response.headers["x-request-id"] == "r"


async def test_stats_are_plain_numbers_and_maps() -> None:
    router = ScriptedRouter()
    router.counters = GetStatsResponse(
        calls=CallCounts(total=1 << 40),
        success_rate=0.5,
        errors=[{"reason": "ERROR_REASON_QUEUE_FULL", "calls": 2}, {"reason": "ERROR_REASON_DRAINING", "calls": 1}],
        rejections={"queue_full": 2},
        endpoints={"http://x:1": EndpointLoad(in_flight=3, breaker=BREAKER_STATE_OPEN)},
    )
    body = (await get(router, "/stats")).json()
    assert set(body) == set(STATS)
    assert (body["total_requests"], body["success_rate"], body["active_requests"]) == (1 << 40, 0.5, 0)
    assert (body["errors_by_type"], body["in_flight"]) == ({"QUEUE_FULL": 2, "DRAINING": 1}, {"http://x:1": 3})
    assert (body["rejected_by_reason"], body["breakers"], body["limits"]) == ({"queue_full": 2}, {"http://x:1": "open"}, {})
    assert body["requests_per_model"] == {}
    assert body["last_reload"] is None


async def test_counts_and_distributions_are_objects() -> None:
    router = ScriptedRouter()
    router.counters = GetStatsResponse(
        by_model={"m": CallCounts(total=2)},
        last_minute=Latencies(ttft=Distribution(count=1, p50=HALF)),
        history=[Interval(start_time={"seconds": 5}, latencies=Latencies())],
    )
    body = (await get(router, "/stats")).json()
    assert body["by_model"]["m"]["total"] == 2
    assert body["last_minute"]["ttft"] == {"count": 1, "mean": None, "p50": 0.5, "p90": None, "p99": None}
    assert body["history"][0]["start_unix"] == 5


async def test_recent_calls_are_a_list_of_objects() -> None:
    router = ScriptedRouter()
    router.recent = ListRecentCallsResponse(recent_calls=[RecentCall(request_id="r", status=499, total_time=HALF)])
    body = (await get(router, "/stats/recent")).json()
    assert list(body) == ["calls"]
    (call,) = body["calls"]
    assert set(call) == set(RECENT["calls"][0])
    assert (call["request_id"], call["status"], call["total_seconds"], call["tokens_input"]) == ("r", 499, 0.5, None)


@pytest.mark.parametrize(("query", "limit"), [("", 0), ("?limit=7", 7), ("?limit=0", 0), ("?limit=999999999", 999_999_999)])
async def test_how_many_recent_calls(query: str, limit: int) -> None:
    router = ScriptedRouter()
    assert (await get(router, f"/stats/recent{query}")).status_code == 200
    assert router.asked[0][1].page_size == limit


@pytest.mark.parametrize("limit", ["", "-1", "x", "1.5", "%D9%A3", "9" * 5000])
async def test_a_limit_that_is_no_number(limit: str) -> None:
    router = ScriptedRouter()
    response = await get(router, f"/stats/recent?limit={limit}")
    assert (response.status_code, response.json()["error"]["param"]) == (400, "limit")
    assert router.asked == []


async def test_the_last_reload_is_told_whole() -> None:
    router = ScriptedRouter()
    report = ReloadReport(
        result=RELOAD_RESULT_REFUSED, trigger="RELOAD_TRIGGER_FILE", finish_time={"seconds": 5}, problems=["a"], bad_reloads=2
    )
    router.counters = GetStatsResponse(last_reload=report)
    assert (await get(router, "/stats")).json()["last_reload"] == {
        "result": "refused",
        "trigger": "file",
        "finished_unix": 5,
        "problems": ["a"],
        "warnings": [],
        "changed_keys": [],
        "keys_needing_restart": [],
        "good_reloads": 0,
        "bad_reloads": 2,
    }


async def test_metrics() -> None:
    response = await get(ScriptedRouter(), "/metrics")
    assert (response.text, response.headers["content-type"]) == ("up 1\n", "text/plain; version=0.0.4")


async def classify(router: ScriptedRouter, body: Any) -> Any:
    async with client(make_app(router, max_body_bytes=100_000)) as http:
        return await http.post("/v1/classify-task", content=json.dumps(body), headers=JSON)


async def test_classify_task() -> None:
    router = ScriptedRouter()
    router.classified = ClassifyResponse(
        recommended_model="m",
        task_type="code",
        confidence=0.75,
        reasoning="why",
        classifier="CLASSIFIER_LLM",
        alternatives=[ModelScore(model="n", score=0.5)],
    )
    response = await classify(router, {"task_description": "t", "candidate_models": ["m", "n"]})
    assert response.json() == {
        "recommended_model": "m",
        "task_type": "code",
        "confidence": 0.75,
        "reasoning": "why",
        "classifier": "llm",
        "alternatives": [{"model": "n", "score": 0.5}],
    }
    request = router.asked[0][1]
    assert (request.task_description, list(request.candidate_models)) == ("t", ["m", "n"])
    assert request.options.request_id == response.headers["x-request-id"]


async def test_classify_task_that_is_switched_off() -> None:
    router = ScriptedRouter()
    router.classified = failure(14, "off", ErrorInfo(reason="CLASSIFIER_DISABLED", domain="lexora.spirrow"))
    response = await classify(router, {"task_description": "t"})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "classifier_disabled")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "task_description"),
        ({"task_description": ""}, "task_description"),
        ({"task_description": "x" * 10_001}, "task_description"),
        ({"task_description": 1}, "task_description"),
        ({"task_description": "t", "candidate_models": "m"}, "candidate_models"),
        ({"task_description": "t", "candidate_models": [1]}, "candidate_models"),
    ],
)
async def test_classify_task_asked_wrongly(body: Any, param: str) -> None:
    router = ScriptedRouter()
    response = await classify(router, body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert not router.asked
