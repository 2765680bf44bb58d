"""What the router says of itself, the same in every way."""

import asyncio
import json
import time

import pytest

from lexora.v1 import classify_pb2, health_pb2, models_pb2, recent_pb2, stats_pb2
from lexora_router.version import __version__
from tests.contract.messages import CHAT, ID, OPTIONS, STREAM, STREAM_BODY, answer, failing, raw_call, streamed, unary
from tests.support.links import Link
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import Do, reply


async def wait_probed(link: Link) -> None:
    """Return when the backend has been probed."""
    health = await link.ask("health", health_pb2.HealthRequest())
    assert health.only.status == health_pb2.BACKEND_STATUS_HEALTHY


async def test_list_models(link: Link, engine: LoopEngine) -> None:
    await wait_probed(link)
    engine.pages["/v1/models"] = reply(b'{"data":[]}')
    outcome = await link.ask("list_models", models_pb2.ListModelsRequest())

    def model(name: str) -> models_pb2.Model:
        return models_pb2.Model(
            id=name,
            backend="main",
            backend_type="vllm",
            capabilities=["general"],
            max_model_len=4096,
            status=health_pb2.BACKEND_STATUS_HEALTHY,
            upstream_json=json.dumps({"id": name, "object": "model", "max_model_len": 4096}),
        )

    assert outcome.only == models_pb2.ListModelsResponse(models=[model("m"), model("vec")], available_capabilities=["general"])


async def test_health(link: Link, engine: LoopEngine) -> None:
    found = (await link.ask("health", health_pb2.HealthRequest())).only
    assert found.uptime_seconds >= 0
    found.ClearField("uptime_seconds")
    healthy = health_pb2.BACKEND_STATUS_HEALTHY
    closed = health_pb2.BREAKER_STATE_CLOSED
    endpoint = health_pb2.EndpointHealth(address=engine.url, status=healthy, breaker=closed, limit=64, available=True)
    backend = health_pb2.BackendHealth(status=healthy, endpoints=[endpoint])
    assert found == health_pb2.HealthResponse(status=healthy, backends={"main": backend}, version=__version__)


async def test_an_unhealthy_backend_says_why(link: Link, engine: LoopEngine) -> None:
    await wait_probed(link)
    await engine.die()
    found = (await link.ask("health", health_pb2.HealthRequest())).only
    while found.status != health_pb2.BACKEND_STATUS_UNHEALTHY:  # a kept connection may break before a new one is refused
        assert (await link.generate(unary(raw=raw_call()))).reason == "UPSTREAM_UNREACHABLE"
        found = (await link.ask("health", health_pb2.HealthRequest())).only
    (endpoint,) = found.backends["main"].endpoints
    assert "cannot connect" in endpoint.reason
    await engine.listen()


async def test_stats(link: Link, engine: LoopEngine) -> None:
    engine.answer(reply(answer()))
    for _ in range(3):
        await link.generate(unary(raw=raw_call()))
    engine.answer(failing("400 Bad Request", b'{"error":{}}'))
    await link.generate(unary(raw=raw_call()))
    found = (await link.ask("get_stats", stats_pb2.GetStatsRequest())).only
    assert 0 < found.average_duration_seconds < found.uptime_seconds + 1
    found.ClearField("average_duration_seconds")
    found.ClearField("uptime_seconds")
    within = (found.last_minute, found.last_five_minutes, found.since_start)
    assert [(each.total.count, each.queue.count, each.ttft.count, each.itl.count) for each in within] == [(4, 4, 0, 0)] * 3
    assert all(0 < each.total.p50 <= each.total.p90 <= each.total.p99 for each in within)
    assert (sum(each.total for each in found.history), sum(each.failed for each in found.history)) == (4, 1)
    for name in ("last_minute", "last_five_minutes", "since_start", "history"):
        found.ClearField(name)
    counts = stats_pb2.CallCounts(total=4, successful=3, failed=1, tokens_input=15, tokens_output=6)
    assert found == stats_pb2.GetStatsResponse(
        total_requests=4,
        successful_requests=3,
        failed_requests=1,
        success_rate=0.75,
        total_tokens_input=15,
        total_tokens_output=6,
        requests_per_endpoint={CHAT: 4},
        requests_per_model={"m": 4},
        requests_per_backend={"main": 4},
        errors_by_type={"UPSTREAM_ERROR": 1},
        in_flight={engine.url: 0},
        queue_depth={"main": 0},
        limits={engine.url: 64},
        breakers={engine.url: "closed"},
        by_path={CHAT: counts},
        by_model={"m": counts},
        by_backend={"main": counts},
        by_endpoint={f"main/{engine.url}": counts},
        by_tenant={"team-a": counts},
    )


async def test_streams_are_counted_like_other_calls(link: Link, engine: LoopEngine) -> None:
    engine.answer(STREAM)
    await link.stream(streamed(raw=raw_call(STREAM_BODY)))
    found = (await link.ask("get_stats", stats_pb2.GetStatsRequest())).only
    assert (found.total_requests, found.successful_requests) == (1, 1)
    assert (found.since_start.ttft.count, found.since_start.total.count) == (1, 1)
    assert (found.total_tokens_input, found.total_tokens_output) == (5, 2)


async def test_recent_calls(link: Link, engine: LoopEngine) -> None:
    engine.answer(reply(answer()))
    await link.generate(unary(raw=raw_call()))
    engine.answer(failing("400 Bad Request", b'{"error":{}}'))
    await link.generate(unary(raw=raw_call()))
    last, before = (await link.ask("recent_calls", recent_pb2.RecentCallsRequest())).only.calls
    assert (before.request_id, before.status, before.error, before.tokens_input, before.tokens_output) == (ID, 200, "", 5, 2)
    assert (last.status, last.error, last.HasField("tokens_input")) == (400, "UPSTREAM_ERROR", False)
    assert (last.path, last.model, last.backend, last.endpoint, last.attempts) == (CHAT, "m", "main", engine.url, 1)
    assert 0 < before.queue_seconds < before.ttft_seconds <= before.total_seconds
    assert abs(last.finished_unix_ms - time.time() * 1000) < 60_000
    assert last.finished_unix_ms >= before.finished_unix_ms
    limited = (await link.ask("recent_calls", recent_pb2.RecentCallsRequest(limit=1))).only
    assert list(limited.calls) == [last]
    assert (await link.ask("recent_calls", recent_pb2.RecentCallsRequest(limit=-1))).reason == "INVALID_REQUEST"


async def test_stats_count_what_is_under_way(link: Link, engine: LoopEngine) -> None:
    engine.answer(Do.HANG)
    task = asyncio.create_task(link.generate(unary(raw=raw_call())))
    await engine.wait_requests()
    found = (await link.ask("get_stats", stats_pb2.GetStatsRequest())).only
    assert (found.active_requests, dict(found.in_flight)) == (1, {engine.url: 1})
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_classify_is_switched_off(link: Link) -> None:
    outcome = await link.ask("classify", classify_pb2.ClassifyRequest(options=OPTIONS, task_description="Sort these."))
    assert outcome.reason == "CLASSIFIER_DISABLED"
    assert outcome.failure.code == 14
    assert ID in str(outcome.failure)
