"""What the router says of itself, the same in every way."""

import asyncio
import json

from lexora.v1 import models_pb2, stats_pb2
from lexora_router.version import __version__
from tests.contract.messages import CHAT, ID, OPTIONS, answer, failing, openai, unary
from tests.support.links import Link
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import Do, reply


async def wait_probed(link: Link) -> None:
    """Return when the backend has been probed."""
    health = await link.ask("health", models_pb2.HealthRequest())
    assert health.only.status == models_pb2.BACKEND_STATUS_HEALTHY


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
            status=models_pb2.BACKEND_STATUS_HEALTHY,
            upstream_json=json.dumps({"id": name, "object": "model", "max_model_len": 4096}),
        )

    assert outcome.only == models_pb2.ListModelsResponse(models=[model("m"), model("vec")], available_capabilities=["general"])


async def test_health(link: Link, engine: LoopEngine) -> None:
    found = (await link.ask("health", models_pb2.HealthRequest())).only
    assert found.uptime_seconds >= 0
    found.ClearField("uptime_seconds")
    healthy = models_pb2.BACKEND_STATUS_HEALTHY
    closed = models_pb2.BREAKER_STATE_CLOSED
    endpoint = models_pb2.EndpointHealth(address=engine.url, status=healthy, breaker=closed, limit=64, available=True)
    backend = models_pb2.BackendHealth(status=healthy, endpoints=[endpoint])
    assert found == models_pb2.HealthResponse(status=healthy, backends={"main": backend}, version=__version__)


async def test_an_unhealthy_backend_says_why(link: Link, engine: LoopEngine) -> None:
    await wait_probed(link)
    await engine.die()
    found = (await link.ask("health", models_pb2.HealthRequest())).only
    while found.status != models_pb2.BACKEND_STATUS_UNHEALTHY:  # a kept connection may break before a new one is refused
        assert (await link.generate(unary(openai=openai()))).reason == "UPSTREAM_UNREACHABLE"
        found = (await link.ask("health", models_pb2.HealthRequest())).only
    (endpoint,) = found.backends["main"].endpoints
    assert "cannot connect" in endpoint.reason
    await engine.listen()


async def test_stats(link: Link, engine: LoopEngine) -> None:
    engine.answer(reply(answer()))
    for _ in range(3):
        await link.generate(unary(openai=openai()))
    engine.answer(failing("400 Bad Request", b'{"error":{}}'))
    await link.generate(unary(openai=openai()))
    found = (await link.ask("get_stats", stats_pb2.GetStatsRequest())).only
    assert 0 < found.average_duration_seconds < found.uptime_seconds + 1
    found.ClearField("average_duration_seconds")
    found.ClearField("uptime_seconds")
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
    )


async def test_stats_count_what_is_under_way(link: Link, engine: LoopEngine) -> None:
    engine.answer(Do.HANG)
    task = asyncio.create_task(link.generate(unary(openai=openai()), timeout=0.3))
    await engine.wait_requests()
    found = (await link.ask("get_stats", stats_pb2.GetStatsRequest())).only
    assert (found.active_requests, dict(found.in_flight)) == (1, {engine.url: 1})
    assert (await task).reason == "DEADLINE_EXCEEDED"


async def test_classify_is_not_in_this_version(link: Link) -> None:
    outcome = await link.ask("classify", models_pb2.ClassifyRequest(options=OPTIONS, task_description="Sort these."))
    assert outcome.reason == "UNIMPLEMENTED"
    assert outcome.failure.code == 12
    assert ID in str(outcome.failure)
