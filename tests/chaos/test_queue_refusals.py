"""Calls that the queue does not take, or not for long: refused in time, with the time to come back that it has measured."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.support import load
from tests.support.links import status_in, trailers
from tests.support.load import Answer, Client, chat
from tests.support.queueing import CHAT, MODEL, chats, gateway_for, grpc_stub, name_of, queued, request, slots_held
from tests.support.servers import Simulator

BEAT_MS = 5
TOKENS = 120
ROOM = 10
DEADLINE_SECONDS = 2.0


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator("--itl-ms", str(BEAT_MS), model=MODEL) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def clean(sim: Simulator) -> None:
    sim.clear()


@dataclass
class Refusal:
    """What gRPC says of a refused call. `retry` is in seconds."""

    code: grpc.StatusCode
    reason: str
    retry: float
    pushback_ms: int
    message: str
    seconds: float


async def refused(stub: Any, name: str, deadline: float | None = None) -> Refusal:
    began = asyncio.get_running_loop().time()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Generate(request(name, chat(MODEL, 1)), timeout=deadline)
    seconds = asyncio.get_running_loop().time() - began
    error, info, retry = caught.value, error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status_in(error).details:
        detail.Unpack(info)
        detail.Unpack(retry)
    delay = retry.retry_delay.ToMilliseconds() / 1000
    pushback = int(trailers(error.trailing_metadata())["grpc-retry-pushback-ms"])
    return Refusal(error.code(), info.reason, delay, pushback, error.details() or "", seconds)


def expected(turns: int, held: float) -> range:
    """What Retry-After may say: so many turns of the one slot, in whole seconds, as exactly as both sides can measure."""
    return range(ceil(0.9 * turns * held), ceil(1.15 * turns * held) + 1)


def check_http(answer: Answer, retry_after: range, word: str) -> None:
    assert (answer.status, answer.error["code"]) == (429, "queue_full")
    assert int(answer.headers["retry-after"]) in retry_after
    assert word in answer.error["message"]


def check_grpc(refusal: Refusal, retry_after: range, word: str) -> None:
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert refusal.retry in retry_after
    assert refusal.pushback_ms == 1000 * refusal.retry
    assert word in refusal.message


async def measure(one: Client) -> float:
    """Let the gateway see how long a call has its slot; returns that, in seconds."""
    answers = [await one.post(CHAT, chat(MODEL, TOKENS), name=f"measured-{number}") for number in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    return sum(answer.seconds for answer in answers) / 3


class Crowd:
    """Calls under way that nobody waits for."""

    def __init__(self, one: Client) -> None:
        self._one = one
        self._tasks: list[asyncio.Task[Answer]] = []

    def come(self, number: int) -> None:
        for _ in range(number):
            name = f"crowd-{len(self._tasks)}"
            self._tasks.append(asyncio.create_task(self._one.post(CHAT, chat(MODEL, TOKENS), name=name)))

    async def leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks)


async def test_full_queues_and_deadlines_that_cannot_be_met(sim: Simulator, tmp_path: Path) -> None:
    with gateway_for(sim, tmp_path, 1, queue={"max_size": ROOM}) as gateway:
        async with load.client(gateway.http) as one, grpc_stub(gateway) as stub:
            held = await measure(one)
            crowd = Crowd(one)
            crowd.come(6)
            await queued(gateway, 5)  # the sixth runs
            # The seventh would wait for six turns of the one slot: about 3.6 s.
            early = await one.post(CHAT, chat(MODEL, 1), name="early-http", x_request_timeout=str(DEADLINE_SECONDS))
            early_grpc = await refused(stub, "early-grpc", deadline=DEADLINE_SECONDS)
            crowd.come(ROOM - 5)
            await queued(gateway, ROOM)
            # With ten in the queue: 11 turns, about 6.6 s.
            full = await one.post(CHAT, chat(MODEL, 1), name="full-http")
            full_grpc = await refused(stub, "full-grpc")
            assert gateway.metric("lexora_queue_depth", backend="main") == ROOM, "too slow a machine: the queue has moved on"
            await crowd.leave()
        await queued(gateway, 0)
        # None of them has waited for as much as one turn.
        assert max(each.seconds for each in (early, early_grpc, full, full_grpc)) < held
        check_http(early, expected(6, held), "deadline is in 2.0 s")
        check_grpc(early_grpc, expected(6, held), "deadline")
        check_http(full, expected(11, held), "is full (queue.max_size: 10)")
        check_grpc(full_grpc, expected(11, held), "is full (queue.max_size: 10)")
        assert not any(name_of(call).startswith(("early", "full")) for call in chats(sim))
        assert gateway.metric("lexora_rejections_total", reason="deadline") == 2
        assert gateway.metric("lexora_rejections_total", reason="queue_full") == 2
    print(
        f"\n6 turns of {held:.2f} s: Retry-After {early.headers['retry-after']}, refused in {1000 * early.seconds:.0f} ms "
        f"(gRPC {1000 * early_grpc.seconds:.0f} ms); 11 turns: Retry-After {full.headers['retry-after']}"
    )


async def test_a_deadline_that_can_be_met_waits(sim: Simulator, tmp_path: Path) -> None:
    with gateway_for(sim, tmp_path, 1, queue={"max_size": ROOM}) as gateway:
        async with load.client(gateway.http) as one:
            await measure(one)
            running = asyncio.create_task(one.post(CHAT, chat(MODEL, TOKENS)))
            waits = asyncio.create_task(one.post(CHAT, chat(MODEL, 1), x_request_timeout=str(DEADLINE_SECONDS)))
            assert (await waits).status == 200
            assert (await running).status == 200


async def test_too_long_a_wait(sim: Simulator, tmp_path: Path) -> None:
    with gateway_for(sim, tmp_path, 1, queue={"timeout": 0.5}) as gateway:
        async with load.client(gateway.http) as one, grpc_stub(gateway) as stub, slots_held(one, sim, 1):
            answer, refusal = await asyncio.gather(one.post(CHAT, chat(MODEL, 1)), refused(stub, "late-grpc"))
        assert (answer.status, answer.error["code"]) == (429, "queue_full")
        assert "waited 0.5 s" in answer.error["message"]
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.seconds >= 0.5
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert refusal.pushback_ms == 1000 * refusal.retry >= 1000
        assert chats(sim) == []
        assert gateway.metric("lexora_rejections_total", reason="queue_timeout") == 2


async def test_no_room_to_wait(sim: Simulator, tmp_path: Path) -> None:
    """With `queue.max_size: 0` nobody waits."""
    with gateway_for(sim, tmp_path, 1, queue={"max_size": 0}) as gateway:
        async with load.client(gateway.http) as one:
            async with slots_held(one, sim, 1):
                answer = await one.post(CHAT, chat(MODEL, 1))
            assert (answer.status, answer.headers["retry-after"]) == (429, "1"), "while the slot is held"
