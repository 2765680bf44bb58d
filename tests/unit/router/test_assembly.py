"""What a reload takes over, what it builds anew, and what becomes of the rest."""

import asyncio
import gc
import itertools
import sys
import time
import weakref
from collections.abc import AsyncIterator, Callable
from types import FrameType
from typing import Any

import pytest
import structlog
from tests.support.links import settle
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import Do, reply
from tests.unit.router.snapshot import snapshot
from tests.unit.router.support import Client, make_call

from lexora_contract.answer import Reply
from lexora_router.assembly import Assembly, Shared
from lexora_router.call import Call, Outcome
from lexora_router.config import Config
from lexora_router.policy.breaker import State
from lexora_router.policy.rate_limiter import RateLimiter
from lexora_router.policy.rate_limits import LimitRules
from lexora_router.process.app import RouterApp

SHARED = Shared(RateLimiter(LimitRules(), 0.0), (), time.monotonic)
BODY = b'{"model":"m","messages":[]}'


def config(*urls: str, limit: int = 1, **sections: Any) -> Config:
    main = {"urls": list(urls), "models": ["m"], "max_concurrency": limit, "connect_timeout": 1}
    other = {"url": "http://127.0.0.1:9", "models": ["n"], "connect_timeout": 1}
    return Config.model_validate({"routing": {"backends": {"main": main, "other": other}}, **sections})


def assembly(config: Config, previous: Assembly | None = None, shared: Shared = SHARED) -> Assembly:
    made = Assembly(config, shared, previous, lambda: None)
    made.take_over(previous)
    return made


def call(**changes: Any) -> Call:
    return make_call(stream=False, body=BODY, **changes)


async def test_a_probe_that_finds_nothing_new_costs_its_own_backend_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the work of probes grows with the square of the backends."""
    looks: list[str] = []
    async with LoopEngine() as engine:
        engine.answer(reply(b""))
        every = {f"b{number}": {"url": engine.url, "models": ["m"]} for number in range(3)}
        health = {"interval": 0.01}
        made = Assembly(
            Config.model_validate({"routing": {"backends": every}, "health": health}), SHARED, None, lambda: looks.append("all")
        )
        for name, backend in made.backends.items():
            monkeypatch.setattr(backend.pool, "dispatch", lambda name=name: looks.append(name))
        probing = asyncio.create_task(made.prober.run())
        await engine.until(lambda: len(looks) >= 30)
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)
    assert looks.count("all") == 3, "the first probes"
    assert len(looks) - 3 <= engine.gets, "none was for all backends"


async def test_what_is_configured_as_before_is_taken_over_whole() -> None:
    old = assembly(config("http://e:1"))
    new = assembly(config("http://e:1", limit=2), old)
    assert new.backends["other"] is old.backends["other"]
    assert new.backends["main"] is not old.backends["main"]
    assert new.backends["main"].transport is not old.backends["main"].transport


@pytest.mark.parametrize("section", ["health", "queue", "tenants", "server"])
async def test_a_section_that_backends_are_built_from_builds_them_anew(section: str) -> None:
    changes: dict[str, Any] = {
        "health": {"failure_threshold": 9},
        "queue": {"max_size": 7, "aging": 3},
        "tenants": {"a": {"priority": "low"}},
        "server": {"max_response_bytes": 9},
    }
    old = assembly(config("http://e:1"))
    new = assembly(config("http://e:1", **{section: changes[section]}), old)
    for name, backend in new.backends.items():
        assert backend is not old.backends[name]
        assert backend.pool is old.backends[name].pool
    pool = new.backends["main"].pool
    assert pool.limits.max_size == (7 if section == "queue" else 1000)
    place = await pool.admit(call(user="a"))
    assert place.call.priority == (0 if section == "tenants" else 50)
    place.close()


async def test_endpoints_keep_their_condition_under_other_rules() -> None:
    old = assembly(config("http://e:1", "http://e:2"))
    first, second = (endpoint.condition for endpoint in old.backends["main"].endpoints)
    now = time.monotonic()
    first.found(healthy=False, reason="because", now=now)
    for _ in range(5):
        second.ended(second.begin(now), Outcome.FAULT, now)
    assert second.breaker_state(now) is State.OPEN
    health = {"failure_threshold": 2, "window": 5.0, "slow_start": 1.0}
    new = assembly(config("http://e:2", "http://e:1", "http://e:3", health=health), old)
    kept = {endpoint.address: endpoint.condition for endpoint in new.backends["main"].endpoints}
    assert kept["http://e:1"] is first
    assert kept["http://e:2"] is second
    assert (first.healthy, first.reason) == (False, "because")
    assert second.breaker_state(now) is State.OPEN
    third = kept["http://e:3"]
    for _ in range(2):
        third.ended(third.begin(now), Outcome.FAULT, now)
    assert third.breaker_state(now) is State.OPEN, "the new rules hold"


@pytest.mark.parametrize(
    ("urls", "percent", "state"),
    [(1, 50, State.OPEN), (2, 50, State.CLOSED), (4, 25, State.CLOSED), (4, 20, State.OPEN), (2, 0, State.OPEN)],
)
async def test_a_share_of_failures_opens_breakers_where_nobody_may_be_ejected(urls: int, percent: int, state: State) -> None:
    health = {"min_calls": 4, "max_ejection_percent": percent}
    made = assembly(config(*(f"http://e:{number}" for number in range(urls)), health=health))
    condition, now = made.backends["main"].endpoints[0].condition, time.monotonic()
    for outcome in [Outcome.GOOD, Outcome.FAULT] * 4:
        condition.ended(condition.begin(now), outcome, now)
    assert condition.breaker_state(now) is state


async def test_a_bug_in_one_judgement_is_logged_and_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lexora_router.assembly.JUDGE_SECONDS", 0.001)
    made = assembly(config("http://e:1"))
    judged = asyncio.Event()

    def bug() -> None:
        raise RuntimeError("never seen before")

    monkeypatch.setattr(made.backends["main"].pool, "judge", bug)
    monkeypatch.setattr(made.backends["other"].pool, "judge", judged.set)
    with structlog.testing.capture_logs() as logs:
        task = asyncio.create_task(made._judge())
        for _ in range(2):
            judged.clear()
            async with asyncio.timeout(20):
                await judged.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert {(line["event"], line["work"], line["backend"]) for line in logs} == {("bug", "ejection", "main")}


async def test_retries_are_granted_once() -> None:
    old = assembly(config("http://e:1"))
    assert assembly(config("http://e:2"), old).budgets == old.budgets
    assert assembly(config("http://e:2", retry={"budget": 0.5}), old).budgets != old.budgets


async def test_a_failed_one_has_changed_nothing() -> None:
    old = assembly(config("http://e:1"))
    wrong = Config.model_validate(
        {
            "routing": {
                "backends": {"main": {"url": "http://e:2"}, "other": {"url": "https://e:3", "ca_file": "/no/such.pem"}},
            },
            "queue": {"max_size": 1},
        }
    )
    with pytest.raises(OSError, match="No such file"):
        assembly(wrong, old)
    pool = old.backends["main"].pool
    assert [endpoint.address for endpoint in pool.endpoints] == ["http://e:1"]
    assert pool.limits.max_size == 1000


class Bug(Exception):
    """Raised by a call in the router's own code."""


def failing(at: int, until: str) -> Callable[[FrameType, str, Any], None]:
    """A profiler that raises in the call of that number, of the router's own functions, before `until` is called."""
    calls = itertools.count()

    def profile(frame: FrameType, event: str, _: Any) -> None:
        ours = frame.f_globals.get("__name__", "").startswith("lexora_router")
        if event != "call" or not ours or frame.f_code.co_name.startswith("<"):  # a generator expression is called to end, too
            return
        if frame.f_code.co_qualname == until:
            sys.setprofile(None)
        elif next(calls) == at:
            raise Bug(frame.f_code.co_qualname)  # which also ends the profiling

    return profile


async def test_whatever_fails_while_a_configuration_is_built_has_changed_nothing(
    app: RouterApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call of the build fails once; then the reload takes place."""

    async def at_once(function: Callable[..., Any], *given: Any) -> Any:
        return function(*given)

    monkeypatch.setattr(asyncio, "to_thread", at_once)  # what is read in a thread fails in this one, and nothing else runs
    before = config("http://127.0.0.1:7", "http://127.0.0.1:8", rate_limit={"enabled": False})
    sections: dict[str, Any] = {"queue": {"max_size": 7}, "health": {"window": 5.0}, "tenants": {"a": {"weight": 2}}}
    wanted = config("http://127.0.0.1:8", "http://127.0.0.1:9", limit=3, **sections)
    await app.reload(before)
    taken = app._assembly

    def work() -> list[str]:
        return sorted(name for task in asyncio.all_tasks() if (name := task.get_name()).startswith("lexora-"))

    def state() -> list[Any]:
        backends = [(backend.pool, [e.condition for e in backend.endpoints]) for backend in taken.backends.values()]
        return [snapshot([backends, app._limiter, app.reloads, taken.catalogue._listings]), dict(taken.conditions)]

    await settle(lambda: all(e.condition.healthy is not None for b in taken.backends.values() for e in b.endpoints))
    untouched, served_with, running = state(), app.guard.serving, work()
    failed: list[str] = []
    for number in itertools.count():
        sys.setprofile(failing(number, until="Assembly.take_over"))
        try:
            await app.reload(wanted)
            break
        except Bug as bug:
            failed.append(str(bug))
        finally:
            sys.setprofile(None)
        assert (app._assembly, app.guard.serving) == (taken, served_with), failed[-1]
        assert state() == untouched, failed[-1]
    assert {"Assembly.__init__", "HttpEndpoint.__init__", "ModelRoutes.__init__", "build", "Tenancy.rules"} <= set(failed)
    assert app._assembly is not taken
    assert taken.backends["main"].pool.limits.max_size == 7, "the pool goes on under the new configuration"
    assert work() == running


@pytest.fixture
async def engine() -> AsyncIterator[LoopEngine]:
    async with LoopEngine("m") as engine:
        yield engine


@pytest.fixture
async def app(engine: LoopEngine) -> AsyncIterator[RouterApp]:
    app = RouterApp(config(engine.url, rate_limit={"enabled": False}))
    await app.start("127.0.0.1", 0)
    yield app
    await app.stop()
    await asyncio.sleep(0)  # aborted sockets are closed in the loop's next round


def asked(app: RouterApp, **changes: Any) -> asyncio.Task[bytes]:
    """A call by the pipeline of now."""
    pipeline = app.guard.serving.pipeline

    async def run() -> bytes:
        client = Client()
        await pipeline(call(**changes), client)
        [event] = client.events
        assert isinstance(event, Reply)
        return event.body

    return asyncio.create_task(run())


@pytest.mark.parametrize("away", ["replica", "backend"])
async def test_calls_still_count_where_an_endpoint_was_away_and_is_back(app: RouterApp, engine: LoopEngine, away: str) -> None:
    gate = asyncio.Event()
    engine.answer(gate, reply(b"{}"))
    with_it = config(engine.url, limit=2, rate_limit={"enabled": False})
    other = config("http://127.0.0.1:9", limit=2, rate_limit={"enabled": False})
    without = other if away == "replica" else Config.model_validate({"vllm": {"url": "http://127.0.0.1:9"}})
    await app.reload(with_it)
    calls = [asked(app) for _ in range(2)]
    await engine.wait_requests(2)
    await app.reload(without)
    await app.reload(with_it)
    assert app._assembly.backends["main"].endpoints[0].in_flight == 2
    calls.append(asked(app))
    await settle(lambda: app._assembly.backends["main"].pool.waiting == 1)
    assert len(engine.requests) == 2, "the limit holds for old and new calls together"
    gate.set()
    assert await asyncio.gather(*calls) == [b"{}"] * 3
    assert app._assembly.backends["main"].endpoints[0].in_flight == 0


async def test_an_endpoint_that_is_gone_is_forgotten_with_its_last_call(app: RouterApp, engine: LoopEngine) -> None:
    gate = asyncio.Event()
    engine.answer(gate, reply(b"{}"))
    url = engine.url.replace("127.0.0.1", "localhost")  # the start's own are outside of garbage collection
    await app.reload(config(url, rate_limit={"enabled": False}))
    call = asked(app)
    await engine.wait_requests()
    for _ in range(3):  # the last configuration but one may still be held
        await app.reload(config("http://127.0.0.1:9", rate_limit={"enabled": False}))
        await app.reload(config("http://127.0.0.1:9", limit=2, rate_limit={"enabled": False}))
    assert ("main", url) in app._assembly.conditions
    gate.set()
    assert await call == b"{}"
    await settle(lambda: not any(assembly.busy for assembly in app._retired))
    await app.reload(config("http://127.0.0.1:9", rate_limit={"enabled": False}))
    del call

    def known() -> set[tuple[str, str]]:
        gc.collect()
        return set(app._assembly.conditions)

    await settle(lambda: ("main", url) not in known())


@pytest.mark.parametrize("same", ["http://E:80/", "http://e", "HTTP://e:80"])
async def test_an_address_may_be_written_in_several_ways(same: str) -> None:
    old = assembly(config("http://e:80"))
    new = assembly(config(same), old)
    assert new.backends["main"].endpoints[0].condition is old.backends["main"].endpoints[0].condition


async def test_a_call_that_asks_for_the_models_is_not_cut_off(app: RouterApp, engine: LoopEngine) -> None:
    """The old configuration's round of questions goes on for those who wait for it."""
    app._assembly.catalogue._refreshed_at = float("-inf")
    listed = engine.pages.pop("/v1/models")
    asked_before = engine.gets
    engine.pages["/v1/models"] = Do.HANG
    await app.reload(config(engine.url, rate_limit={"enabled": False}, catalogue={"timeout": 0.3}))
    waiting = asked(app, model="unknown-yet")
    await settle(lambda: engine.gets > asked_before)
    engine.pages["/v1/models"] = listed
    await app.reload(config(engine.url, rate_limit={"enabled": False}, health={"interval": 1}))
    with pytest.raises(Exception, match="unknown-yet"):
        await waiting


async def test_old_configurations_leave_nothing_behind(app: RouterApp, engine: LoopEngine) -> None:
    engine.answer(reply(b"{}"))
    old = []
    for number in range(10):
        await app.reload(config(engine.url, rate_limit={"enabled": False}, health={"interval": 5 + number}))
        assert await asked(app) == b"{}"
        old.append(weakref.ref(app._assembly))
    assert await asked(app) == b"{}"
    await settle(lambda: not any(assembly.busy for assembly in app._retired))
    await app.reload(config(engine.url))
    assert len(app._retired) == 1
    await settle(lambda: len(engine.connections) <= 3)
    gc.collect()
    assert sum(each() is not None for each in old) <= 1
    background = [task.get_name() for task in asyncio.all_tasks()]
    assert background.count("lexora-probe") == 1


async def test_probes_of_an_endpoint_that_is_known_are_not_waited_for(app: RouterApp, engine: LoopEngine) -> None:
    await settle(lambda: all(e.condition.healthy is not None for b in app._assembly.backends.values() for e in b.endpoints))
    engine.pages["/health"] = Do.HANG
    began = time.monotonic()
    await app.reload(config(engine.url, health={"timeout": 60}))
    assert (await app._overview.health(draining=False)).backends["main"].endpoints[0].address == engine.url
    assert time.monotonic() - began < 5
