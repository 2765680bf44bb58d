import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.support import CHAT, make_call

from lexora.v1 import errors_pb2, health_pb2, models_pb2, receipt_pb2, recent_calls_pb2, stats_pb2
from lexora_contract.answer import Hop, Usage
from lexora_contract.times import duration, seconds, timestamp, unix
from lexora_router.assembly import Assembly
from lexora_router.call import Outcome
from lexora_router.config import Config, ModelEntry
from lexora_router.edge.introspection import PROBE_SLACK_SECONDS, Overview
from lexora_router.errors import InvalidRequest, ModelNotFound, QueueFull, UpstreamBroken
from lexora_router.fleet.backend import Backend, build_backends, combine
from lexora_router.fleet.endpoint_health import Condition
from lexora_router.fleet.routes import RoutableModel
from lexora_router.policy.concurrency import EngineLoad
from lexora_router.principal import ANYBODY, Principal
from lexora_router.state.link import StateLink
from lexora_router.telemetry.account import CallRecord
from lexora_router.telemetry.recent import RecentCalls
from lexora_router.telemetry.reloads import ReloadLog
from lexora_router.telemetry.stats import Stats
from lexora_router.version import __version__

HEALTHY, DEGRADED, UNHEALTHY, UNKNOWN = (
    health_pb2.BACKEND_STATUS_HEALTHY,
    health_pb2.BACKEND_STATUS_DEGRADED,
    health_pb2.BACKEND_STATUS_UNHEALTHY,
    health_pb2.BACKEND_STATUS_UNSPECIFIED,
)


PROBE_TIMEOUT = 1.5


class FakeProber:
    def __init__(self, delay: float) -> None:
        self._delay = delay

    async def first_round(self) -> None:
        await asyncio.sleep(self._delay)


class FakeRoutes:
    def __init__(self, *models: RoutableModel) -> None:
        self._models = list(models)

    async def default_model(self) -> str:
        return "m"

    async def models(self) -> list[RoutableModel]:
        return self._models


def make_backend(url: str, **fields: Any) -> Backend:
    """A backend that lives by the running loop's clock."""
    config = Config.model_validate({"routing": {"backends": {"main": {"url": url, **fields}}}, "health": {"open_time": 5}})
    return build_backends(config, now)["main"]


def found(backend: Backend, state: bool | None, reason: str = "") -> Condition:
    condition = backend.endpoints[0].condition
    if state is not None:
        condition.found(healthy=state, reason=reason, now=now())
    return condition


def opened(backend: Backend) -> None:
    """Fail until the breaker opens."""
    condition = backend.endpoints[0].condition
    while condition.breaker_state(now()) == "closed":
        condition.ended(condition.begin(now()), Outcome.FAULT, now())


def wall() -> float:
    """The time of day: the loop's clock, a million seconds on."""
    return now() + 1e6


def overview(
    *backends: Backend,
    models: tuple[RoutableModel, ...] = (),
    delay: float = 0.0,
    stats: Stats | None = None,
    recent: RecentCalls | None = None,
    state: object = None,
) -> Overview:
    named = {f"b{number}": backend for number, backend in enumerate(backends)}
    assembly = SimpleNamespace(
        backends=named,
        routes=FakeRoutes(*models),
        prober=FakeProber(delay),
        config=Config.model_validate(
            {"routing": {"default_model_for_unknown_task": "m"}, "health": {"timeout": PROBE_TIMEOUT}}
        ),
        health=lambda: combine([backend.health() for backend in named.values()]),
    )
    counted = stats or Stats(now())
    known = lambda: cast("Assembly", assembly)  # noqa: E731
    shared = cast("StateLink | None", state)
    return Overview(known, counted, recent or RecentCalls(), ReloadLog(), clock=now, wall_clock=wall, state=shared)


@jumping
async def test_models_are_told_with_what_is_configured_and_what_is_listed() -> None:
    backend = make_backend("http://e:1", type="openai_compatible")
    found(backend, True)
    entry = ModelEntry.model_validate({"name": "m", "capabilities": ["code", "analysis"], "description": "A model."})
    listed = b'{"id":"l","max_model_len":4096}'
    models = (RoutableModel("m", backend, entry, 99, b""), RoutableModel("l", backend, None, 4096, listed, alias_of="x"))
    response = await overview(backend, models=models).models(models_pb2.ListModelsRequest(), ANYBODY)
    assert list(response.available_capabilities) == ["analysis", "code"]
    assert response.default_model_for_unknown_task == "m"
    first, second = response.models
    assert first == models_pb2.Model(
        id="m",
        backend="main",
        backend_type="BACKEND_TYPE_OPENAI_COMPATIBLE",
        capabilities=["code", "analysis"],
        description="A model.",
        max_model_len=99,
        status=HEALTHY,
    )
    assert (second.alias_of, list(second.capabilities)) == ("x", ["general"])
    assert json.loads(second.upstream_json) == json.loads(listed)


@jumping
async def test_a_principal_sees_the_models_that_it_may_use_and_no_others() -> None:
    backend = make_backend("http://e:1", type="openai_compatible")
    entries = {name: ModelEntry.model_validate({"name": name, "capabilities": [name]}) for name in "mst"}
    models = tuple(RoutableModel(name, backend, entry, 99, b"") for name, entry in entries.items())
    seen, principal = overview(backend, models=(*models, RoutableModel("fast", backend, entries["m"], 99, b"", "m"))), Principal
    some = principal("acme", models=("s", "fast"))
    response = await seen.models(models_pb2.ListModelsRequest(), some)
    assert [(model.id, model.alias_of) for model in response.models] == [("s", ""), ("fast", "")]
    assert (list(response.available_capabilities), response.default_model_for_unknown_task) == (["m", "s"], "")
    assert (await seen.model("s", some)).model.id == "s"
    refusals = []
    for name in ("t", "nowhere"):
        with pytest.raises(ModelNotFound) as refused:
            await seen.model(name, some)
        refusals.append(refused.value.message.replace(f"`{name}`", "NAME"))
    assert refusals[0] == refusals[1]
    every = await seen.models(models_pb2.ListModelsRequest(), principal("acme"))
    assert [(model.id, model.alias_of) for model in every.models][-1] == ("fast", "m")


@pytest.mark.parametrize(
    ("states", "status"),
    [((True, True), HEALTHY), ((True, False), DEGRADED), ((False, False), UNHEALTHY), ((None, None), UNKNOWN)],
)
@jumping
async def test_health_names_every_backend_and_endpoint(states: tuple[bool | None, ...], status: int) -> None:
    backends = [make_backend("http://e:1"), make_backend("http://e:2")]
    for backend, state in zip(backends, states, strict=True):
        found(backend, state, "because")
    backends[0].endpoints[0].condition.in_flight = 3
    seen = overview(*backends)
    await asyncio.sleep(5)
    health = await seen.health(draining=False)
    assert health.status == status
    assert (health.version, seconds(health.uptime)) == (__version__, 5.0)
    assert set(health.backends) == {"b0", "b1"}
    assert health.backends["b0"].endpoints[0].address == "http://e:1"
    assert health.backends["b0"].endpoints[0].in_flight == 3
    assert health.backends["b1"].endpoints[0].reason == ("" if states[1] is None else "because")


@jumping
async def test_health_says_whether_the_state_is_shared() -> None:
    backend = make_backend("http://e:1")
    found(backend, True)
    link = SimpleNamespace(degraded=False, reason="", members=3)
    seen = overview(backend, state=link)
    health = await seen.health(draining=False)
    assert (health.status, health.state) == (HEALTHY, health_pb2.SharedState(shared=True, replicas=3))
    link.degraded, link.reason = True, "gone"
    health = await seen.health(draining=False)
    assert (health.status, health.state) == (DEGRADED, health_pb2.SharedState(reason="gone", replicas=3))
    assert seen.stats().state == health.state
    assert not (await overview(backend).health(draining=False)).HasField("state")


@jumping
async def test_health_tells_who_takes_calls_and_how_many() -> None:
    fixed = make_backend("http://e:1", max_concurrency=1)
    free = make_backend("http://e:2", type="openai_compatible")
    moving = make_backend("http://e:3", concurrency="auto")
    lease = await fixed.pool.admit(make_call())
    waiting = asyncio.create_task(fixed.pool.admit(make_call()))
    opened(free)
    auto = moving.endpoints[0].auto
    assert auto is not None
    auto.scraped(EngineLoad(waiting=2.0, kv_cache_usage=0.5, at=now(), running=7.0))
    await asyncio.sleep(0)
    seen = overview(fixed, free, moving)
    backends = (await seen.health(draining=False)).backends
    first, second, third = (backends[name].endpoints[0] for name in ("b0", "b1", "b2"))
    assert [backends[name].waiting for name in ("b0", "b1", "b2")] == [1, 0, 0]
    assert (first.limit, first.in_flight, first.breaker, first.available) == (1, 1, health_pb2.BREAKER_STATE_CLOSED, True)
    assert (second.HasField("limit"), second.breaker, second.available) == (False, health_pb2.BREAKER_STATE_OPEN, False)
    assert (third.limit, third.waiting, third.running, third.kv_cache_usage) == (16, 2, 7, 0.5)
    assert not any(first.HasField(name) for name in ("waiting", "running", "kv_cache_usage"))
    await asyncio.sleep(6)
    second = (await seen.health(draining=False)).backends["b1"].endpoints[0]
    assert (second.breaker, second.available) == (health_pb2.BREAKER_STATE_HALF_OPEN, True)
    lease.close()
    (await waiting).close()


@pytest.mark.parametrize(("delay", "waited"), [(0.5, 0.5), (1e6, PROBE_TIMEOUT + PROBE_SLACK_SECONDS)])
@jumping
async def test_health_waits_for_the_first_probes_but_not_for_long(delay: float, waited: float) -> None:
    start = now()
    await overview(make_backend("http://e:1"), delay=delay).health(draining=False)
    assert now() - start == pytest.approx(waited)


@jumping
async def test_stats_are_told() -> None:
    backend, stats = make_backend("http://e:1"), Stats(now())
    backend.endpoints[0].condition.in_flight = 2
    call = make_call()
    call.receipt.backend, call.receipt.attempts, call.receipt.finished_at = "main", 3, 4.0
    call.receipt.usage, call.receipt.endpoint, call.receipt.lost_tokens = Usage(5, 7, 3), "http://e:1", 2
    stats.begin(call)
    stats.begin(make_call())
    stats.end(CallRecord(call, 200, None, call.model))
    told = overview(backend, stats=stats).stats()
    assert (told.calls.total, told.calls.successful, told.calls.failed, told.active_calls) == (1, 1, 0, 1)
    assert (told.success_rate, told.retries, seconds(told.mean_time)) == (1.0, 2, 4.0)
    assert {address: load.in_flight for address, load in told.endpoints.items()} == {"http://e:1": 2}
    assert told.wasted_tokens == stats_pb2.WastedTokens(failed_attempt=2)
    counts = stats_pb2.CallCounts(total=1, successful=1, tokens_input=5, tokens_output=7, tokens_cached=3)
    by = (told.by_path[CHAT], told.by_model["m"], told.by_backend["main"], told.by_tenant["anonymous"])
    assert [*by, told.by_endpoint["main/http://e:1"], told.calls] == [counts] * 6


@jumping
async def test_stats_tell_the_last_minutes() -> None:
    stats, start = Stats(now()), now()
    seen = overview(stats=stats)
    call = make_call(started=now())
    call.receipt.dispatched_at = now() + 0.5
    call.receipt.first_event_at = now() + 1.0
    await asyncio.sleep(2.0)
    call.receipt.finished_at, call.receipt.usage = now(), Usage(3, 4)
    stats.windows.gap(0.1, now())
    stats.begin(call)
    stats.end(CallRecord(call, 502, UpstreamBroken("x"), call.model))
    told = seen.stats()
    for within in (told.last_minute, told.last_five_minutes, told.since_start):
        found = [(each.count, seconds(each.mean)) for each in (within.ttft, within.itl, within.queue, within.total)]
        assert found == [(1, pytest.approx(mean)) for mean in (1.0, 0.1, 0.5, 2.0)]
        assert seconds(within.total.p99) == pytest.approx(2.0, rel=0.05)
    (only,) = told.history
    assert (unix(only.start_time), seconds(only.length), only.total, only.failed) == (start + 1e6, 2.0, 1, 1)
    assert (only.tokens_input, only.tokens_output) == (3, 4)
    assert only.latencies == told.last_minute
    await asyncio.sleep(60)
    told = seen.stats()
    counts = [within.total.count for within in (told.last_minute, told.last_five_minutes, told.since_start)]
    assert counts == [0, 1, 1]
    assert [each.total for each in told.history] == [1, 0, 0, 0, 0, 0, 0]
    assert [each.start_time.seconds - only.start_time.seconds for each in told.history] == [0, 10, 20, 30, 40, 50, 60]


@jumping
async def test_recent_calls_are_told() -> None:
    recent = RecentCalls()
    seen = overview(recent=recent)
    call, refused = make_call(started=now(), user="somebody"), make_call(id="call-2", started=now(), path="", stream=False)
    receipt = call.receipt
    receipt.backend, receipt.endpoint, receipt.attempts, receipt.usage = "main", "http://e:1", 2, Usage(3, 4)
    receipt.dispatched_at, receipt.first_event_at, receipt.finished_at = now() + 1, now() + 2, now() + 3
    receipt.hops, receipt.resumed = (Hop("a", "main", "QUEUE_FULL"),), "text"
    recent.end(CallRecord(call, 200, None, call.model))
    refused.receipt.finished_at = now() + 4
    recent.end(CallRecord(refused, 429, QueueFull("x", 1.0), refused.model))
    await asyncio.sleep(10)
    last, before = seen.recent_calls(recent_calls_pb2.ListRecentCallsRequest()).recent_calls
    assert before == recent_calls_pb2.RecentCall(
        request_id="call-1",
        finish_time=timestamp(wall() - 7),
        path=CHAT,
        model="m",
        backend="main",
        endpoint="http://e:1",
        status=200,
        stream=True,
        queue_time=duration(1.0),
        time_to_first_token=duration(2.0),
        total_time=duration(3.0),
        tokens_input=3,
        tokens_output=4,
        attempts=2,
        hops=[{"from_backend": "a", "to_backend": "main", "reason": "ERROR_REASON_QUEUE_FULL"}],
        resume_method=receipt_pb2.RESUME_METHOD_TEXT,
    )
    assert (last.request_id, last.path, last.status, last.error) == ("call-2", "other", 429, errors_pb2.ERROR_REASON_QUEUE_FULL)
    assert not any(last.HasField(name) for name in ("queue_time", "time_to_first_token", "tokens_input", "tokens_output"))
    pages, token = [], ""
    while not pages or token:
        page = seen.recent_calls(recent_calls_pb2.ListRecentCallsRequest(page_size=1, page_token=token))
        pages.append([call.request_id for call in page.recent_calls])
        token = page.next_page_token
    assert pages == [["call-2"], ["call-1"]]
    for bad in ({"page_size": -1}, {"page_token": "x"}, {"page_token": "bW9kZWwAbQ=="}):
        with pytest.raises(InvalidRequest, match="page_"):
            seen.recent_calls(recent_calls_pb2.ListRecentCallsRequest(**bad))


@jumping
async def test_stats_before_the_first_call() -> None:
    told = overview(make_backend("http://e:1")).stats()
    assert (told.calls.total, told.success_rate, seconds(told.mean_time)) == (0, 1.0, 0.0)
    assert (told.since_start.ttft.count, seconds(told.since_start.ttft.p99), len(told.history)) == (0, 0.0, 1)


@jumping
async def test_stats_tell_what_did_not_go_straight() -> None:
    stats, call = Stats(0.0), make_call()
    call.receipt.hops, call.receipt.resumed, call.receipt.attempts = (Hop("a", "b", "QUEUE_FULL"),), "text", 3
    for ended, error in ((call, None), (make_call(), QueueFull("x", 1.0, "deadline"))):
        stats.begin(ended)
        stats.end(CallRecord(ended, 429 if error else 200, error, ended.model))
    told = overview(stats=stats).stats()
    assert (told.retries, told.fallbacks, told.resumed_streams) == (2, 1, 1)
    assert told.rejections == stats_pb2.Rejections(deadline=1)
    assert list(told.errors) == [stats_pb2.ErrorCount(reason=errors_pb2.ERROR_REASON_QUEUE_FULL, calls=1)]


@jumping
async def test_stats_tell_queues_limits_and_breakers() -> None:
    fixed, twin = make_backend("http://e:1", max_concurrency=1), make_backend("http://e:1", max_concurrency=3)
    free = make_backend("http://e:2", type="openai_compatible")
    lease = await fixed.pool.admit(make_call())
    waiting = asyncio.create_task(fixed.pool.admit(make_call()))
    await asyncio.sleep(0)
    opened(twin)
    told = overview(fixed, twin, free).stats()
    assert dict(told.waiting) == {"b0": 1, "b1": 0, "b2": 0}
    assert dict(told.endpoints) == {
        "http://e:1": stats_pb2.EndpointLoad(in_flight=1, limit=4, breaker=health_pb2.BREAKER_STATE_OPEN),
        "http://e:2": stats_pb2.EndpointLoad(breaker=health_pb2.BREAKER_STATE_CLOSED),
    }
    lease.close()
    (await waiting).close()
