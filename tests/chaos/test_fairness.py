"""Tenants share an engine by tokens, whatever each of them sends: as the engine's own log has it."""

import asyncio
import base64
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.support import load
from tests.support.load import Answer, Client, chat
from tests.support.queueing import CHAT, MODEL, chats, gateway_for, name_of, queued, slots_held
from tests.support.servers import Gateway, Simulator
from tests.support.timeline import jain

SLOTS = 8
TENANTS = 10
CALLS = 24
GREEDY = "tenant-0"
FAIR = 0.95


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator("--itl-ms", "2", model=MODEL) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def clean(sim: Simulator) -> None:
    sim.clear()


@dataclass(frozen=True)
class Job:
    """One call of one tenant."""

    tenant: str
    name: str
    tokens: int
    words: int
    picture: str = ""
    around: dict[str, Any] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        content: Any = "word " * self.words
        if self.picture:
            url = {"url": f"data:image/png;base64,{self.picture}"}
            content = [{"type": "text", "text": content}, {"type": "image_url", "image_url": url}]
        prompt = [{"role": "user", "content": content}]
        return chat(MODEL, self.tokens, user=self.tenant, messages=prompt) | self.around


def unlike(calls: int) -> list[Job]:
    """Calls of tenants whose bodies weigh unlike, for a like number of tokens."""
    dice = random.Random(11)
    spans = {"trace": [{"span": f"{dice.getrandbits(64):x}", "name": "retrieve", "ms": n} for n in range(400)]}
    found = []
    for number in range(calls):
        picture = base64.b64encode(dice.randbytes(dice.randint(50_000, 250_000))).decode()
        kinds: dict[str, dict[str, Any]] = {"text": {}, "pictures": {"picture": picture}, "json": {"around": spans}}
        found += [
            Job(name, f"{name}-{number}", dice.randint(4, 40), dice.randint(1, 200), **kind) for name, kind in kinds.items()
        ]
    return sorted(found, key=lambda job: job.tenant)


def jobs(**numbers: int) -> list[Job]:
    """So many calls of each tenant, of very different sizes; the greediest tenant's come first."""
    dice = random.Random(7)
    found = []
    for tenant in sorted(numbers, key=lambda each: -numbers[each]):
        name = tenant.replace("_", "-")
        found += [Job(name, f"{name}-{n}", dice.randint(4, 40), dice.randint(1, 60)) for n in range(numbers[tenant])]
    return found


async def run(sim: Simulator, gateway: Gateway, work: list[Job]) -> list[Answer]:
    """Let all of it queue up, then let it run."""
    async with load.client(gateway.http) as one, asyncio.TaskGroup() as group, slots_held(one, sim, SLOTS):
        tasks = []
        # Those of one tenant come together: who comes first must not matter.
        for turn, job in enumerate(work):
            tasks.append(group.create_task(one.post(CHAT, job.body, name=job.name)))
            if turn % 50 == 49:
                await queued(gateway, turn + 1)
        await queued(gateway, len(work))
    answers = [task.result() for task in tasks]
    assert [answer.status for answer in answers] == [200] * len(work)
    return answers


def served(sim: Simulator, answers: list[Answer]) -> tuple[dict[str, float], dict[str, float], float]:
    """Output tokens and all tokens by tenant, while every tenant had calls waiting, and the seconds that this was so."""
    log = chats(sim)
    by_tenant: dict[str, list[dict[str, Any]]] = {}
    for call in log:
        by_tenant.setdefault(json.loads(call["body"])["user"], []).append(call)
    first, until = log[0]["received"], min(calls[-1]["received"] for calls in by_tenant.values())
    prompts = {answer.id: answer.json["usage"]["prompt_tokens"] for answer in answers}
    output, everything = {}, {}
    for tenant, calls in by_tenant.items():
        mine = [call for call in calls if call["received"] < until]
        output[tenant] = float(sum(call["tokens_sent"] for call in mine))
        everything[tenant] = output[tenant] + sum(prompts[name_of(call)] for call in mine)
    return output, everything, until - first


async def test_ten_tenants_one_of_them_greedy(sim: Simulator, tmp_path: Path) -> None:
    numbers = {f"tenant_{number}": CALLS * (10 if number == 0 else 1) for number in range(TENANTS)}
    with gateway_for(sim, tmp_path, SLOTS) as gateway:
        answers = await run(sim, gateway, jobs(**numbers))
    output, everything, seconds = served(sim, answers)
    assert len(everything) == TENANTS
    others = [tokens for tenant, tokens in everything.items() if tenant != GREEDY]
    print(
        f"\n{TENANTS} tenants, one with 10 times the calls, {seconds:.1f} s with all of them waiting: Jain index "
        f"{jain([*everything.values()]):.4f} of tokens, {jain([*output.values()]):.4f} of output tokens; "
        f"the greedy one got {everything[GREEDY]:.0f}, the others {min(others):.0f} to {max(others):.0f}"
    )
    assert min(everything.values()) > 300, "too few tokens to say anything"
    assert jain([*everything.values()]) >= FAIR
    assert jain([*output.values()]) >= FAIR


async def test_bodies_that_weigh_unlike(sim: Simulator, tmp_path: Path) -> None:
    """Images in base64 and JSON around a short prompt count as the tokens that they are, not as their bytes."""
    with gateway_for(sim, tmp_path, SLOTS) as gateway:
        answers = await run(sim, gateway, unlike(100))
    _, everything, _ = served(sim, answers)
    print(f"\ntext, pictures and JSON: tokens {everything}, Jain index {jain([*everything.values()]):.4f}")
    assert len(everything) == 3
    assert min(everything.values()) > 1000, "too few tokens to say anything"
    assert jain([*everything.values()]) >= FAIR


async def test_shares_follow_the_weights(sim: Simulator, tmp_path: Path) -> None:
    weights = {"one": 1, "two": 2, "four": 4}
    with gateway_for(sim, tmp_path, SLOTS, tenants={name: {"weight": weight} for name, weight in weights.items()}) as gateway:
        answers = await run(sim, gateway, jobs(one=60, two=60, four=60))
    _, everything, _ = served(sim, answers)
    shares = {tenant: tokens / weights[tenant] for tenant, tokens in everything.items()}
    print(f"\nweights 1, 2, 4: tokens {everything}, Jain index by weight {jain([*shares.values()]):.4f}")
    assert jain([*shares.values()]) >= FAIR
    assert max(shares.values()) < 1.5 * min(shares.values())


async def one_by_one(one: Client, calls: int) -> list[float]:
    """How long each call of a tenant waited that never has more than one, in seconds."""
    waits = []
    for number in range(calls):
        answer = await one.post(CHAT, chat(MODEL, 1, user="someone"), name=f"someone-{number}")
        assert answer.status == 200
        waits.append(answer.seconds)
    return waits


async def test_a_batch_job_does_not_starve_a_person(sim: Simulator, tmp_path: Path) -> None:
    batch = [Job("batch", f"batch-{number}", 40, 10) for number in range(300)]
    with gateway_for(sim, tmp_path, SLOTS) as gateway:
        async with load.client(gateway.http) as one, asyncio.TaskGroup() as group:
            async with slots_held(one, sim, SLOTS):
                tasks = [group.create_task(one.post(CHAT, job.body, name=job.name)) for job in batch]
                await queued(gateway, len(batch))
            waits = sorted(await one_by_one(one, 20))
            assert gateway.metric("lexora_queue_depth", backend="main") > 0, "the batch must still wait"
        held = median(call["finished"] - call["received"] for call in chats(sim, without="someone"))
        assert len(tasks) == len(batch)
    print(
        f"\nbehind {len(batch)} calls of {1000 * held:.0f} ms: a person's calls took p50 {1000 * median(waits):.0f} ms, "
        f"at most {1000 * waits[-1]:.0f} ms"
    )
    assert median(waits) < 2 * held, "the next slot that gets free is theirs"
    assert waits[-1] < 5 * held  # 300 calls wait before them: 75 turns of the four slots
