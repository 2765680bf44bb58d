"""Shares and priorities are of the tenant that a key is of, whatever its client calls itself from call to call."""

import asyncio
import random
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx

from lexora.v1 import router_pb2
from lexora_contract.access import Scope
from tests.support import load
from tests.support.keys import add_key
from tests.support.queueing import CHAT, MODEL, Stub, chats, name_of, request
from tests.support.servers import Gateway, Simulator, base_config, metric
from tests.support.wire import wait_until

GREEDY, MODEST = 60, 12


def disguise(dice: random.Random) -> tuple[str, dict[str, Any], dict[str, str]]:
    """A new name, and fields and headers that say it."""
    name = dice.choice(["José", "Ωmega", "ﬁona", "bob"]) + str(dice.random())
    name = unicodedata.normalize(dice.choice(["NFC", "NFD", "NFKC"]), name)
    name = dice.choice([str.upper, str.lower])(name)
    fields: list[dict[str, Any]] = [{"user": name}, {"safety_identifier": name}, {"metadata": {"user_id": name}}, {}]
    headers = [{"x_lexora_user": name}, {"x_lexora_tenant": name}, {"x_lexora_session": name}, {"x_forwarded_for": "10.0.0.9"}]
    return name, dice.choice(fields), dice.choice(headers)


async def test_a_tenant_with_a_name_for_each_call_gets_one_share(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    greedy = add_key(file, tenant="greedy", max_priority=50).text
    modest = add_key(file, tenant="modest").text
    watcher = add_key(file, tenant="watcher", scopes=(Scope.CALL, Scope.OBSERVE)).text
    dice = random.Random(3)
    with Simulator("--itl-ms", "1", model=MODEL) as sim:
        config = base_config(main={"url": sim.url, "models": [MODEL], "max_concurrency": 1})
        config["auth"] = {"mode": "keys", "keys_file": str(file)}
        with Gateway(config, tmp_path) as gateway:
            async with load.client(gateway.http) as one, grpc.aio.insecure_channel(gateway.grpc) as channel:
                keys = {"greedy": greedy, "modest": modest, "watcher": watcher}
                await all_at_once(Scene(one, Stub(channel), sim, gateway, keys), dice)
        order = ["greedy" if name_of(call).startswith("greedy") else "modest" for call in chats(sim)]
    assert order.count("greedy") == GREEDY
    assert order.count("modest") == MODEST
    last = max(place for place, tenant in enumerate(order) if tenant == "modest")
    print(f"\nthe last of {MODEST} modest calls was served as number {last + 1}, beside {GREEDY} of a greedy tenant")
    assert last + 1 <= 2 * MODEST + 4, order


@dataclass(frozen=True)
class Scene:
    """Clients of a gateway in front of an engine with one slot; keys by tenant."""

    one: load.Client
    stub: Any
    sim: Simulator
    gateway: Gateway
    keys: dict[str, str]


async def all_at_once(scene: Scene, dice: random.Random) -> None:
    """Let all calls queue up, the greedy ones first, and let them run."""
    one, stub, keys = scene.one, scene.stub, scene.keys

    async def by_grpc(name: str, body: dict[str, Any], user: str) -> int:
        asked: router_pb2.GenerateRequest = request(name, body, 100)
        asked.call.options.user = asked.call.options.tenant = user
        return int((await stub.Generate(asked, metadata=(("authorization", f"Bearer {keys['greedy']}"),))).raw.head.status)

    async def by_http(name: str, body: dict[str, Any], key: str, headers: dict[str, str]) -> int:
        return (await one.post(CHAT, body, name=name, x_api_key=key, **headers)).status

    def waiting(number: int) -> bool:
        text = httpx.get(f"{scene.gateway.http}/metrics", headers={"x-api-key": keys["watcher"]}, verify=False).text
        return metric(text, "lexora_queue_depth", backend="main") == number

    hanging = load.chat(MODEL, 1, sim_fault="hang")
    holder = asyncio.create_task(one.post(CHAT, hanging, name="held-0", x_api_key=keys["watcher"]))
    await asyncio.to_thread(wait_until, lambda: scene.sim.stats()["requests"] == 1, "the slot to be taken")
    tasks = []
    for number in range(GREEDY):
        user, fields, headers = disguise(dice)
        body, name = load.chat(MODEL, 4) | fields, f"greedy-{number}"
        if number % 3 == 0:
            tasks.append(asyncio.create_task(by_grpc(name, body, user)))
        else:
            tasks.append(asyncio.create_task(by_http(name, body, keys["greedy"], headers | {"x_lexora_priority": "high"})))
    await asyncio.to_thread(wait_until, lambda: waiting(GREEDY), "the greedy ones to wait")
    tasks += [
        asyncio.create_task(by_http(f"modest-{number}", load.chat(MODEL, 4), keys["modest"], {})) for number in range(MODEST)
    ]
    await asyncio.to_thread(wait_until, lambda: waiting(GREEDY + MODEST), "all to wait")
    holder.cancel()
    assert set(await asyncio.gather(*tasks)) == {200}
