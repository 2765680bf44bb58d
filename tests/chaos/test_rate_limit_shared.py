"""One client of an account must not lock out the others: its calls under way are bounded, and its claims of tokens."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from lexora.v1.call_pb2 import Call
from lexora.v1.explain_pb2 import ExplainRequest
from tests.support import load, wire
from tests.support.load import Client, chat
from tests.support.queueing import CHAT, MODEL, by_grpc, grpc_stub, request
from tests.support.servers import Gateway, Simulator, base_config, write_config

SHORT = "short-context"
CONTEXT, TOKENS_PER_MINUTE = 4096, 60_000
MOST = 3
CLAIM = 1_000_000_000


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator("--itl-ms", "1", "--model", SHORT, model=MODEL) as simulator:
        yield simulator


def config_of(sim: Simulator, **limits: Any) -> dict[str, Any]:
    models = [MODEL, {"name": SHORT, "max_model_len": CONTEXT}]
    config = base_config(main={"url": sim.url, "models": models, "max_concurrency": 64})
    return config | {"rate_limit": {"default_rate": 1000.0, "default_burst": 1000} | limits}


@pytest.fixture(scope="module")
def gateway(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    users = {"bounded": {"max_concurrent": MOST}}
    config = config_of(sim, tokens_per_minute=TOKENS_PER_MINUTE, users=users)
    with Gateway(config, tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@asynccontextmanager
async def hanging(one: Client, sim: Simulator, number: int, **body: Any) -> AsyncIterator[None]:
    """So many calls that get no answer are under way; their clients leave at the end."""
    before = sim.stats()["requests"]
    async with load.held(one, chat(MODEL, 1, sim_fault="hang") | body, number):
        await asyncio.to_thread(wire.wait_until, lambda: sim.stats()["requests"] == before + number, "calls at the engine")
        yield


async def test_calls_under_way_are_bounded_and_come_back_on_every_way_out(sim: Simulator, gateway: Gateway) -> None:
    mine = chat(MODEL, 1, user="bounded")
    ways_out = (
        {},
        {"stream": True},
        {"sim_fault": "status;code=500"},
        {"sim_fault": "die_after=1", "stream": True, "max_tokens": 8},
        {"max_tokens": -1},
        {"n": "?"},
    )
    async with load.client(gateway.http) as one, grpc_stub(gateway) as stub, AsyncExitStack() as rest:
        await rest.enter_async_context(hanging(one, sim, MOST - 1, user="bounded", stream=True))
        for way in (*ways_out, *ways_out):
            assert (await one.post(CHAT, mine | way)).status != 429
        late = await one.post(CHAT, mine | {"sim_fault": "hang"}, x_request_timeout="0.1")
        assert late.status == 504
        async with hanging(one, sim, 1, user="bounded"):
            refused = await one.post(CHAT, mine)
            assert (refused.status, refused.error["code"], refused.headers["retry-after"]) == (429, "rate_limited", "1")
            assert f"calls under way: {MOST} at once" in refused.error["message"]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await by_grpc(stub, "", mine)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            tenant = (await stub.Explain(ExplainRequest(call=Call(raw=request("", mine).call.raw)))).tenant
            under_way = tenant.rate_limit.concurrent
            assert (tenant.allowed, under_way.limit, under_way.remaining) == (False, MOST, 0)
            assert "over its rate limit of calls at once" in tenant.reason
            assert (await one.post(CHAT, chat(MODEL, 1, user="somebody"))).status == 200
        active = partial(gateway.metric, "lexora_active_requests")
        await asyncio.to_thread(wire.wait_until, lambda: active() == MOST - 1, "one to leave")
        assert (await one.post(CHAT, mine)).status == 200


async def test_a_claim_beyond_reason_locks_nobody_out(sim: Simulator, gateway: Gateway) -> None:
    """By a model's context where that is known, else by what the bucket holds."""
    async with load.client(gateway.http) as one:
        async with hanging(one, sim, 1, model=SHORT, user="shared", max_tokens=CLAIM):
            other = await one.post(CHAT, chat(MODEL, 1, user="shared"))
            assert other.status == 200
            assert int(other.headers["x-ratelimit-remaining-tokens"]) > TOKENS_PER_MINUTE - 2 * CONTEXT
        await asyncio.to_thread(wire.wait_idle, gateway.http)
        async with hanging(one, sim, 1, model="unlisted", user="open", max_tokens=CLAIM, stream=True):
            waits = []
            while (answer := await one.post(CHAT, chat(MODEL, 500, user="open", stream=True))).status == 429:
                waits.append(float(answer.headers["retry-after"]))
                await asyncio.sleep(0.05)
            assert answer.status == 200
            assert waits
            assert max(waits) <= 1, "the account goes on at its rate"
        await asyncio.to_thread(wire.wait_idle, gateway.http)
        after = await one.post(CHAT, chat(MODEL, 1, user="open"))
        assert int(after.headers["x-ratelimit-remaining-tokens"]) > TOKENS_PER_MINUTE / 2, "what was not used is back"


async def test_a_reload_bounds_calls_that_are_under_way_and_changes_who_is_believed(sim: Simulator, tmp_path: Path) -> None:
    config = config_of(sim) | {"reload": {"watch": False}}
    with await asyncio.to_thread(Gateway, config, tmp_path) as gateway:
        async with load.client(gateway.http) as one, hanging(one, sim, 2, user="busy"):
            asked = partial(one.post, CHAT, chat(MODEL, 1), x_forwarded_for="10.0.0.7", x_lexora_explain="1")
            assert (await asked()).json["tenant"]["user"] == "anonymous@10.0.0.7"
            other = config_of(sim, max_concurrent=2) | {"reload": {"watch": False}}
            other["server"]["trusted_proxies"] = []
            write_config(other, tmp_path)
            await asyncio.to_thread(gateway.signal, 1)
            await asyncio.to_thread(gateway.wait_for, "configuration_applied")
            assert (await one.post(CHAT, chat(MODEL, 1, user="busy"))).status == 429
            assert (await one.post(CHAT, chat(MODEL, 1, user="other"))).status == 200
            assert (await asked()).json["tenant"]["user"] == "anonymous@127.0.0.1"


async def test_by_default_one_client_alone_fills_no_queue(sim: Simulator, tmp_path: Path) -> None:
    """One that names nobody and sends 1,300 calls at once: another address is let in, and served before the rest of them."""
    config = base_config(main={"url": sim.url, "models": [MODEL], "max_concurrency": 16})
    del config["rate_limit"]
    with await asyncio.to_thread(Gateway, config, tmp_path) as gateway:
        async with load.client(gateway.http) as one:
            flood = chat(MODEL, 100)
            tasks = [asyncio.create_task(one.post(CHAT, flood, x_forwarded_for="10.0.0.66")) for _ in range(1300)]
            waiting = partial(gateway.metric, "lexora_queue_depth", backend="main")
            await asyncio.to_thread(wire.wait_until, lambda: waiting() > 500, "a long queue", 20)
            other = await one.post(CHAT, chat(MODEL, 1), x_forwarded_for="10.0.0.7")
            still = await asyncio.to_thread(waiting)
            answers = await asyncio.gather(*tasks)
    refused = [answer for answer in answers if answer.status == 429]
    print(f"\n{len(refused)} of 1300 refused; another client's call took {other.seconds:.2f} s, {still:.0f} still waited")
    assert other.status == 200
    assert still > 100
    assert {answer.status for answer in answers} == {200, 429}
    assert {answer.error["code"] for answer in refused} == {"rate_limited"}
