"""What the router says of itself, the same in every way."""

import json
import time

from lexora.v1 import errors_pb2, health_pb2, models_pb2, recent_calls_pb2, stats_pb2
from lexora_contract.times import seconds, unix
from lexora_router.version import __version__
from tests.contract.messages import CHAT, ID, answer, failing, raw_call, unary
from tests.support.links import Link
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import reply


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
            backend_type="BACKEND_TYPE_VLLM",
            capabilities=["general"],
            max_model_len=4096,
            status=health_pb2.BACKEND_STATUS_HEALTHY,
            upstream_json=json.dumps({"id": name, "object": "model", "max_model_len": 4096}),
        )

    assert outcome.only == models_pb2.ListModelsResponse(models=[model("m"), model("vec")], available_capabilities=["general"])


async def test_models_come_in_pages(link: Link) -> None:
    first = (await link.ask("list_models", models_pb2.ListModelsRequest(page_size=1))).only
    second = (await link.ask("list_models", models_pb2.ListModelsRequest(page_token=first.next_page_token))).only
    assert [[model.id for model in page.models] for page in (first, second)] == [["m"], ["vec"]]
    assert (second.next_page_token, list(first.available_capabilities)) == ("", ["general"])
    for bad in ({"page_size": -1}, {"page_token": "not ours"}, {"page_token": "A" * 5000}):
        assert (await link.ask("list_models", models_pb2.ListModelsRequest(**bad))).reason == "INVALID_REQUEST"


async def test_one_model(link: Link) -> None:
    listed = (await link.ask("list_models", models_pb2.ListModelsRequest())).only.models
    assert (await link.ask("get_model", models_pb2.GetModelRequest(id="vec"))).only.model == listed[1]
    assert (await link.ask("get_model", models_pb2.GetModelRequest(id="nope"))).reason == "MODEL_NOT_FOUND"
    assert (await link.ask("get_model", models_pb2.GetModelRequest())).reason == "INVALID_REQUEST"


async def test_health(link: Link, engine: LoopEngine) -> None:
    found = (await link.ask("health", health_pb2.HealthRequest())).only
    assert found.HasField("uptime")
    found.ClearField("uptime")
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
    assert "Connection refused" in endpoint.reason
    await engine.listen()


async def test_stats(link: Link, engine: LoopEngine) -> None:
    engine.answer(reply(answer()))
    for _ in range(3):
        await link.generate(unary(raw=raw_call()))
    engine.answer(failing("400 Bad Request", b'{"error":{}}'))
    await link.generate(unary(raw=raw_call()))
    found = (await link.ask("get_stats", stats_pb2.GetStatsRequest())).only
    assert 0 < seconds(found.mean_time) < seconds(found.uptime) + 1
    found.ClearField("mean_time")
    found.ClearField("uptime")
    within = (found.last_minute, found.last_five_minutes, found.since_start)
    assert [(each.total.count, each.queue.count, each.ttft.count, each.itl.count) for each in within] == [(4, 4, 0, 0)] * 3
    assert all(0 < seconds(each.total.p50) <= seconds(each.total.p90) <= seconds(each.total.p99) for each in within)
    assert (sum(each.total for each in found.history), sum(each.failed for each in found.history)) == (4, 1)
    for name in ("last_minute", "last_five_minutes", "since_start", "history"):
        found.ClearField(name)
    counts = stats_pb2.CallCounts(total=4, successful=3, failed=1, tokens_input=15, tokens_output=6)
    assert found == stats_pb2.GetStatsResponse(
        calls=counts,
        success_rate=0.75,
        errors=[stats_pb2.ErrorCount(reason=errors_pb2.ERROR_REASON_UPSTREAM_ERROR, calls=1)],
        rejections=stats_pb2.Rejections(),
        wasted_tokens=stats_pb2.WastedTokens(),
        waiting={"main": 0},
        endpoints={engine.url: stats_pb2.EndpointLoad(limit=64, breaker=health_pb2.BREAKER_STATE_CLOSED)},
        by_path={CHAT: counts},
        by_model={"m": counts},
        by_backend={"main": counts},
        by_endpoint={f"main/{engine.url}": counts},
        by_tenant={"team-a": counts},
    )


async def test_recent_calls(link: Link, engine: LoopEngine) -> None:
    engine.answer(reply(answer()))
    await link.generate(unary(raw=raw_call()))
    engine.answer(failing("400 Bad Request", b'{"error":{}}'))
    await link.generate(unary(raw=raw_call()))
    last, before = (await link.ask("list_recent_calls", recent_calls_pb2.ListRecentCallsRequest())).only.recent_calls
    assert (before.request_id, before.status, before.error, before.tokens_input, before.tokens_output) == (ID, 200, 0, 5, 2)
    assert (last.status, last.error, last.HasField("tokens_input")) == (400, errors_pb2.ERROR_REASON_UPSTREAM_ERROR, False)
    assert (last.path, last.model, last.backend, last.endpoint, last.attempts) == (CHAT, "m", "main", engine.url, 1)
    assert 0 < seconds(before.queue_time) < seconds(before.time_to_first_token) <= seconds(before.total_time)
    assert abs(unix(last.finish_time) - time.time()) < 60
    assert unix(last.finish_time) >= unix(before.finish_time)
    limited = (await link.ask("list_recent_calls", recent_calls_pb2.ListRecentCallsRequest(page_size=1))).only
    assert list(limited.recent_calls) == [last]
    rest = recent_calls_pb2.ListRecentCallsRequest(page_token=limited.next_page_token)
    found = (await link.ask("list_recent_calls", rest)).only
    assert (list(found.recent_calls), found.next_page_token) == ([before], "")
    assert (
        await link.ask("list_recent_calls", recent_calls_pb2.ListRecentCallsRequest(page_size=-1))
    ).reason == "INVALID_REQUEST"
