"""The queue between real processes: its order and its slots, as the engine's own log has them."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from lexora_router.fleet.waiting import LOOK_SECONDS
from tests.support import load
from tests.support.load import Answer, chat
from tests.support.queueing import CHAT, MODEL, by_grpc, chats, gateway_for, grpc_stub, name_of, queued, slots_held
from tests.support.servers import Gateway, Simulator, base_config
from tests.support.timeline import handover, intervals, most_at_once

SLOTS = 4
TOKENS = 10
BEAT_MS = 5
PRIORITIES = {"high": 100, "normal": 50, "low": 0}
AGING_SECONDS = 0.5
# A slot that the end of a call does not hand on is found by the next look only, which is half of this later on average.
HANDOVER_SECONDS = LOOK_SECONDS / 3
# By so much a busy machine may be late.
SLACK_SECONDS = 0.25


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator("--itl-ms", str(BEAT_MS), model=MODEL) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def clean(sim: Simulator) -> None:
    sim.clear()


async def run_backlog(sim: Simulator, gateway: Gateway, names: list[str]) -> list[Answer]:
    """Let calls, whose names begin with their priority, queue up and then run: half of them by HTTP, half by gRPC."""
    async with load.client(gateway.http) as one, grpc_stub(gateway) as stub, asyncio.TaskGroup() as group:
        tasks = []
        async with slots_held(one, sim, SLOTS):
            for number, name in enumerate(names):
                word = name.partition("-")[0]
                body = chat(MODEL, TOKENS, user=word)
                if number % 2:
                    call = by_grpc(stub, name, body, PRIORITIES[word])
                else:
                    call = one.post(CHAT, body, name=name, x_lexora_priority=word)
                tasks.append(group.create_task(call))
            await queued(gateway, len(names))
    answers = [task.result() for task in tasks]
    assert [answer.status for answer in answers] == [200] * len(names)
    return answers


def names_of(**numbers: int) -> list[str]:
    """So many names of each priority, shuffled."""
    names = [f"{word}-{number}" for word, most in numbers.items() for number in range(most)]
    random.Random(7).shuffle(names)
    return names


def check_slots(sim: Simulator, title: str) -> None:
    """Never more calls at the engine than slots, and none free while calls waited."""
    spans = intervals(chats(sim))
    assert sim.stats()["max_running"] == SLOTS
    assert most_at_once(spans) == SLOTS
    found = handover(spans, SLOTS)
    print(f"\n{title}: {len(spans)} calls, at most {SLOTS} at the engine, {found}")
    assert found.median < HANDOVER_SECONDS
    assert found.idle_share < 0.25


async def test_200_calls_of_three_priorities_run_in_order(sim: Simulator, tmp_path: Path) -> None:
    with gateway_for(sim, tmp_path, SLOTS) as gateway:
        await run_backlog(sim, gateway, names_of(high=66, normal=67, low=67))
        check_slots(sim, "three priorities")
    order = [name_of(call).partition("-")[0] for call in chats(sim)]
    # Calls that are sent within a moment may change places on the way, but no more of them than there are slots.
    early = {"normal": order[: 66 - SLOTS].count("normal"), "low": order[: 133 - SLOTS].count("low")}
    late = {"high": order[66 + SLOTS :].count("high"), "normal": order[133 + SLOTS :].count("normal")}
    print(f"out of order by more than {SLOTS} places: {sum(early.values()) + sum(late.values())}")
    assert not any(early.values())
    assert not any(late.values())


@pytest.mark.serial  # when a call is served is the subject
async def test_waiting_calls_age_up_to_the_top(sim: Simulator, tmp_path: Path) -> None:
    with gateway_for(sim, tmp_path, SLOTS, queue={"aging": AGING_SECONDS}) as gateway:
        answers = await run_backlog(sim, gateway, names_of(high=140, normal=30, low=30))
        check_slots(sim, "ageing")
    sent = {answer.id: answer.sent for answer in answers}
    log = chats(sim)
    started = {name_of(call): call["received"] for call in log}
    begin, end = min(started.values()), max(started.values())
    per_call = (end - begin) / len(log)
    last_high = max(at for name, at in started.items() if name.startswith("high"))
    for word, classes in (("normal", 1), ("low", 2)):
        mine = sorted((at, name) for name, at in started.items() if name.startswith(word))
        top = min(sent[name] for _, name in mine) + classes * AGING_SECONDS
        assert mine[0][0] > top - 0.05, f"{word} must not pass high before its time"
        # Once in the top level, a priority is served in turn with the two others there.
        bound = [max(top, begin) + 3 * per_call * turn for turn in range(1, len(mine) + 1)]
        lateness = max(at - due for (at, _), due in zip(mine, bound, strict=True))
        print(
            f"{word}: in the top level after {classes * AGING_SECONDS:g} s; latest against the bound {1000 * lateness:.0f} ms"
        )
        # A pause of the machine is late for all of them; without ageing they would wait for the last of the high ones.
        assert lateness < max(SLACK_SECONDS, (end - top) / 4)
        assert mine[-1][0] < last_high, f"high calls came all the time, and {word} ran before the last of them"


OTHER_BODIES = {
    CHAT: chat("", 1),
    "/v1/completions": {"prompt": "a", "max_tokens": 1},
    "/v1/responses": {"input": "a", "max_output_tokens": 1},
    "/v1/messages": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1},
}


async def test_the_priority_goes_on_only_to_engines_that_schedule_by_it(tmp_path: Path) -> None:
    with (
        Simulator("--priority-scheduling", model="ranked") as by_priority,
        Simulator("--model", "wrong", model="plain") as plain,
    ):
        config = base_config(
            ranked={"url": by_priority.url, "models": ["ranked"], "scheduling_policy": "priority"},
            plain={"url": plain.url, "models": ["plain"]},
            wrong={"url": plain.url, "models": ["wrong"], "scheduling_policy": "priority"},
        )
        with Gateway(config, tmp_path) as gateway:
            async with load.client(gateway.http) as one, grpc_stub(gateway) as stub:
                for model in ("ranked", "plain"):
                    for word, number in (PRIORITIES | {"75": 75}).items():
                        answer = await one.post(CHAT, chat(model, 1), name=f"{word}-http", x_lexora_priority=word)
                        assert answer.status == 200, answer.body
                        assert (await by_grpc(stub, f"{word}-grpc", chat(model, 1), number)).status == 200
                    assert (await one.post(CHAT, chat(model, 1), name="unsaid")).status == 200
                    for path, body in OTHER_BODIES.items():
                        named = {"name": f"low-{path}", "x_lexora_priority": "low"}
                        answer = await one.post(path, body | {"model": model, "priority": -1000}, **named)
                        assert answer.status == 200, answer.body
                refused = await one.post(CHAT, chat("wrong", 1), x_lexora_priority="high")
        assert refused.status == 400, "this engine answers an error to any priority, and its word goes to the client"
        assert "priority" in refused.error["message"].lower()
        # vLLM's polarity: less is earlier, 0 is its default.
        expected = {"high": -50, "normal": 0, "low": 50, "75": -25, "unsaid": 0}
        seen = {name_of(call): call["priority"] for call in chats(by_priority) if "/" not in name_of(call)}
        assert seen == {f"{word}-{way}": expected[word] for word in (*PRIORITIES, "75") for way in ("http", "grpc")} | {
            "unsaid": 0
        }
        assert not [call for call in plain.posts() if '"priority"' in call["body"] and call["status"] == 200]
        others = {name_of(call): call["priority"] for call in by_priority.posts() if "/" in name_of(call)}
        assert others == {f"low-{path}": 50 for path in OTHER_BODIES}, "and none gets what its client wrote itself"
