"""Explanations between real processes, each held against the call that is then made: the same way in, the same moment."""

import asyncio
import contextlib
import itertools
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import msgspec
import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from lexora.v1.call_pb2 import Call
from lexora.v1.explain_pb2 import ExplainRequest
from lexora.v1.options_pb2 import FALLBACK_POLICY_NEVER, CallOptions
from lexora.v1.raw_pb2 import RawCall
from lexora.v1.router_pb2 import GenerateRequest
from lexora_contract.plain import plain
from tests.support import load, wire
from tests.support.links import status_in
from tests.support.load import Client
from tests.support.process import Process
from tests.support.queueing import CHAT, MODEL, chats, grpc_stub, name_of, slots_held
from tests.support.servers import LEXORA, Gateway, Simulator, base_config

WAYS = ("one process", "two processes", "grpc")
ALONE = "alone-1b"
SMALL = "small-8b"
_numbers = itertools.count()
PRIORITIES = {"high": 100, "normal": 50, "low": 0}


@dataclass
class Fleet:
    """Two replicas with a fallback, an engine with one slot, and a gateway in one process and in two."""

    a: Simulator
    b: Simulator
    small: Simulator
    alone: Simulator
    gateway: Gateway
    front: str

    def who_got(self, name: str) -> list[str]:
        """Addresses of the engines that got the call of this name."""
        sims = (self.a, self.b, self.small, self.alone)
        return [sim.url for sim in sims if sim.alive and name in {name_of(call) for call in sim.posts()}]


def fleet_config(a: str, b: str, small: str, alone: str, **routing: Any) -> dict[str, Any]:
    config = base_config(
        small={"url": small, "models": [SMALL], "fallback_models": {MODEL: SMALL}},
        main={"urls": [a, b], "models": [MODEL], "fallback_backends": ["small"]},
        alone={"url": alone, "models": [ALONE], "max_concurrency": 1, "queue": {"max_size": 6}},
    )
    config["routing"] |= {"aliases": {"fast": MODEL}} | routing
    config["health"] |= {"failure_threshold": 3, "open_time": 60.0}
    config["retry"] = {"max_retries": 0}
    config["rate_limit"] = {"default_rate": 1000, "default_burst": 1000, "users": {"poor": {"rate": 0.001, "burst": 3}}}
    config["tenants"] = {"batch": {"max_priority": "low", "priority": "low"}}
    return config


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with ExitStack() as stack:
        a, b, small, alone = (stack.enter_context(Simulator(model=model)) for model in (MODEL, MODEL, SMALL, ALONE))
        folder = tmp_path_factory.mktemp("gateway")
        gateway = stack.enter_context(Gateway(fleet_config(a.url, b.url, small.url, alone.url), folder))
        command = [*LEXORA, "gateway", "--router", gateway.grpc, "--host", "127.0.0.1", "--port", "0"]
        facade = stack.enter_context(Process(command))
        front = facade.wait_ready(r"http=\S*?(http://[\d.:]+)").group(1)
        yield Fleet(a, b, small, alone, gateway, front)


@dataclass
class Got:
    """What a call came to; `code` is the reason of its error in lower case."""

    name: str
    backend: str
    code: str
    headers: dict[str, str] = field(default_factory=dict)


class Asker:
    """Asks what would become of a call, and makes it, by one of the ways."""

    def __init__(self, way: str, one: Client, stub: Any) -> None:
        self._way, self._one, self._stub = way, one, stub

    async def explain(self, body: dict[str, Any], priority: str = "", *, never: bool = False, seconds: float = 0) -> Any:
        if self._way == "grpc":
            request = ExplainRequest(call=Call(options=_options(priority, never), raw=_call(body)))
            return plain(await self._stub.Explain(request, timeout=seconds or None))
        answer = await self._one.post(CHAT, body, x_lexora_explain="1", **_headers(priority, never, seconds))
        assert (answer.status, answer.headers["x-lexora-explain"]) == (200, "1"), answer.body
        return answer.json

    async def call(self, body: dict[str, Any], priority: str = "", *, never: bool = False, seconds: float = 0) -> Got:
        name = f"made-{next(_numbers)}"
        if self._way == "grpc":
            return await self._by_grpc(name, body, priority, never, seconds)
        answer = await self._one.post(CHAT, body, name=name, **_headers(priority, never, seconds))
        code = "" if answer.status == 200 else answer.error["code"]
        return Got(name, answer.headers.get("x-lexora-backend", ""), code, dict(answer.headers))

    async def _by_grpc(self, name: str, body: dict[str, Any], priority: str, never: bool, seconds: float) -> Got:
        request = GenerateRequest(call=Call(options=_options(priority, never), raw=_call(body)))
        request.call.options.request_id = name
        try:
            receipt = (await self._stub.Generate(request, timeout=seconds or None)).receipt
        except grpc.aio.AioRpcError as error:
            return _refused(name, error)
        limits = {"x-ratelimit-remaining-requests": str(receipt.rate_limit.requests.remaining)}
        return Got(name, receipt.backend, "", limits)


def _refused(name: str, error: grpc.aio.AioRpcError) -> Got:
    info = ErrorInfo()
    assert any(detail.Unpack(info) for detail in status_in(error).details)
    return Got(name, info.metadata["backend"], info.reason.lower())


def _headers(priority: str, never: bool, seconds: float) -> dict[str, str]:
    found = {"x_lexora_priority": priority, "x_lexora_fallback": "never" if never else ""}
    found["x_request_timeout"] = f"{seconds}" if seconds else ""
    return {name: value for name, value in found.items() if value}


def _options(priority: str, never: bool) -> CallOptions:
    fallback = FALLBACK_POLICY_NEVER if never else None
    return CallOptions(priority=PRIORITIES[priority] if priority else None, fallback=fallback)


def _call(body: dict[str, Any]) -> RawCall:
    return RawCall(path=CHAT, body=msgspec.json.encode(body))


@pytest.fixture(params=WAYS)
async def asker(request: pytest.FixtureRequest, fleet: Fleet) -> AsyncIterator[Asker]:
    for sim in (fleet.a, fleet.b, fleet.small, fleet.alone):
        if sim.alive:
            sim.clear()
    async with asking(fleet, request.param) as asker:
        yield asker


@asynccontextmanager
async def asking(fleet: Fleet, way: str) -> AsyncIterator[Asker]:
    base = fleet.front if way == "two processes" else fleet.gateway.http
    async with load.client(base) as one, grpc_stub(fleet.gateway) as stub:
        yield Asker(way, one, stub)


def first_of(found: Any) -> Any:
    """The target that takes the call."""
    return next(target for target in found["targets"] if target["verdict"] == found["verdict"])


def posts(fleet: Fleet) -> int:
    return sum(len(sim.posts()) for sim in (fleet.a, fleet.b, fleet.small, fleet.alone) if sim.alive)


async def test_an_idle_fleet_takes_the_call_where_the_explanation_says(fleet: Fleet, asker: Asker) -> None:
    body = load.chat("fast", 1, user="rich")
    async with load.client(fleet.gateway.http) as one:
        hanging = asyncio.create_task(one.post(CHAT, load.chat(MODEL, 1, sim_fault="hang"), name="held-one"))
        await asyncio.to_thread(wire.wait_until, lambda: fleet.who_got("held-one"), "one replica is busier")
        before = posts(fleet)
        found = await asker.explain(body)
        assert posts(fleet) == before, "an explanation sends nothing"
        got = await asker.call(body)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
    assert (found["verdict"], found["route"]["rule"], found["route"]["model"]) == ("dispatch", "alias", MODEL)
    main = first_of(found)
    assert (got.code, got.backend) == ("", main["backend"])
    assert [endpoint["score"] for endpoint in main["endpoints"]] == [0.0, 1.0]
    assert fleet.who_got(got.name) == [main["endpoints"][0]["address"]]


async def test_the_limits_are_those_that_the_call_meets(asker: Asker) -> None:
    body = load.chat(SMALL, 1, user="rich")
    left = (await asker.explain(body))["tenant"]["rate_limit"]["requests"]["remaining"]
    got = await asker.call(body)
    # The bucket of a fast user fills by one within a millisecond; what counts is that asking took nothing out of it.
    assert left <= int(got.headers["x-ratelimit-remaining-requests"]) + 1
    poor = load.chat(SMALL, 1, user="poor")
    for _ in range(10):
        found = await asker.explain(poor)
        if found["verdict"] == "reject":
            break
        remaining = found["tenant"]["rate_limit"]["requests"]["remaining"]
        again = await asker.explain(poor)
        assert again["tenant"]["rate_limit"]["requests"]["remaining"] == remaining, "a peek takes nothing"
        got = await asker.call(poor)
        assert (got.code, got.headers["x-ratelimit-remaining-requests"]) == ("", str(remaining))
    assert (found["error"], found["tenant"]["allowed"]) == ("RATE_LIMITED", False)
    assert (await asker.call(poor)).code == "rate_limited"


async def test_the_place_in_the_queue_is_the_one_that_the_call_gets(fleet: Fleet, asker: Asker) -> None:
    body = load.chat(ALONE, 1, user="rich")
    async with taken(fleet) as (one, group):
        for number, word in enumerate(("low", "normal", "high", "normal")):
            group.create_task(one.post(CHAT, body, name=f"{word}-{number}", x_lexora_priority=word))
            await waiting(fleet, number + 1)
        found = await asker.explain(body, "normal")
        last = await asker.explain(load.chat(ALONE, 1, user="batch"), "high")
        call = group.create_task(asker.call(body, "normal"))
        await waiting(fleet, 5)
        group.create_task(one.post(CHAT, body, name="low-5", x_lexora_priority="low"))
        await waiting(fleet, 6)
        full = await asker.explain(body, "high")
        refused = await asker.call(body, "high")
    order = [name_of(each) for each in chats(fleet.alone)]
    assert found["verdict"] == "queue"
    assert first_of(found)["waiting"] == 4
    assert first_of(found)["position"] == 4 == order.index((await call).name) + 1
    assert (last["tenant"]["priority"], first_of(last)["position"]) == (0, 5)
    assert (full["verdict"], full["error"]) == ("reject", "QUEUE_FULL")
    assert "is full (queue.max_size: 6)" in full["targets"][0]["reason"]
    assert refused.code == "queue_full"


async def until(ask: Callable[[], Awaitable[Any]], good: Callable[[Any], bool]) -> Any:
    """Ask again until the explanation is good."""
    async with asyncio.timeout(10):
        while True:
            found = await ask()
            if good(found):
                return found
            await asyncio.sleep(0.02)


@asynccontextmanager
async def taken(fleet: Fleet) -> AsyncIterator[tuple[Client, asyncio.TaskGroup]]:
    """The one slot of `alone` is taken; a client, and a group for calls that wait, whose end comes after the slot is free."""
    async with (
        load.client(fleet.gateway.http) as one,
        asyncio.TaskGroup() as group,
        slots_held(one, fleet.alone, 1, model=ALONE),
    ):
        yield one, group


async def waiting(fleet: Fleet, number: int) -> None:
    def wait() -> bool:
        return fleet.gateway.metric("lexora_queue_depth", backend="alone") == number

    await asyncio.to_thread(wire.wait_until, wait, f"{number} calls to wait")


# -- the command


def lexora(fleet: Fleet, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*LEXORA, "explain", "--router", fleet.gateway.grpc, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_the_command_tells_it_to_people(fleet: Fleet) -> None:
    done = lexora(fleet, "--model", "fast", "--user", "batch", "--priority", "high")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "The call would be sent at once, to `main`."
    assert lines[1] == f"route   `fast` is an alias of `{MODEL}`, which is configured at backend `main`."
    assert "priority 0 (100 was asked for, 0 is the most)" in lines[2]
    assert f"backend main as {MODEL}, healthy, 0 of 1,000 waiting: dispatch" in lines
    assert any(fleet.a.url in line and line.split()[1] in ("likely", "maybe") for line in lines)
    assert "\x1b" not in done.stdout


def test_the_command_prints_json_and_ends_with_1_for_a_call_that_is_refused(fleet: Fleet) -> None:
    done = lexora(fleet, "-m", ALONE, "--json", "--timeout", "5", "--no-fallback")
    found = json.loads(done.stdout)
    assert (done.returncode, found["verdict"], found["targets"][0]["backend"]) == (0, "dispatch", "alone")
    assert plain(ExplainRequest()).keys() >= {"call", "model"}
    long = lexora(fleet, "--model", "m" * 1025)
    assert (long.returncode, long.stdout) == (1, "")
    assert long.stderr.startswith("lexora: INVALID_REQUEST: model is too long")
    wrong = lexora(fleet, "--priority", "urgent")
    assert wrong.returncode == 2
    assert "priority must be high, normal, low" in wrong.stderr


# -- broken engines; the last test, for they do not come back


async def test_engines_that_died(fleet: Fleet) -> None:
    body = load.chat(MODEL, 1, user="rich")
    async with contextlib.AsyncExitStack() as stack:
        askers = [await stack.enter_async_context(asking(fleet, way)) for way in WAYS]

        fleet.a.kill()
        await probed(askers[0], body, fleet.a.url)
        for asker in askers:
            found = await asker.explain(body)
            assert (found["verdict"], found["targets"][0]["status"]) == ("dispatch", "degraded")
            well, dead = found["targets"][0]["endpoints"]
            assert (well["address"], well["eligible"], dead["address"], dead["eligible"]) == (
                fleet.b.url,
                True,
                fleet.a.url,
                False,
            )
            assert dead["reason"].startswith("down: ")
            got = await asker.call(body)
            assert (got.backend, fleet.who_got(got.name)) == ("main", [fleet.b.url])

        fleet.b.kill()
        await probed(askers[0], body, fleet.b.url)
        found = await askers[0].explain(body, never=True)
        assert (found["verdict"], "most likely fail there" in found["summary"][0]) == ("dispatch", True)
        assert (await askers[0].call(body, never=True)).code == "upstream_unreachable"

        # Calls that fail open the breakers; then the fallback is the first that takes them.
        while (found := await askers[0].explain(body))["targets"][0]["verdict"] != "reject":
            await askers[0].call(body)
        for asker in askers:
            found = await asker.explain(body)
            assert (found["verdict"], first_of(found)["backend"]) == ("dispatch", "small")
            assert {endpoint["breaker"] for endpoint in found["targets"][0]["endpoints"]} == {"open"}
            got = await asker.call(body)
            assert (got.backend, fleet.who_got(got.name)) == ("small", [fleet.small.url])
            found = await asker.explain(body, never=True)
            assert (found["verdict"], found["error"]) == ("reject", "NO_HEALTHY_ENDPOINT")
            assert (await asker.call(body, never=True)).code == "no_healthy_endpoint"
    done = await asyncio.to_thread(lexora, fleet, "--model", MODEL, "--no-fallback")
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, "The call would be refused: NO_HEALTHY_ENDPOINT.")


async def probed(asker: Asker, body: dict[str, Any], address: str) -> None:
    """Return when the endpoint is known to be down."""

    def known(found: Any) -> bool:
        return any(each["address"] == address and each["reason"] for each in found["targets"][0]["endpoints"])

    await until(lambda: asker.explain(body), known)
