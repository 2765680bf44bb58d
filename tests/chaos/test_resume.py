"""Streams whose engine is killed, stopped or frozen: with `failover.resume` they go on elsewhere, word for word."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from tests.support.servers import Gateway, Simulator, base_config

MODEL = "qwen3-32b"
STREAMS = 60
TOKENS = 120
IDLE_SECONDS = 1.0
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
DONE = b"data: [DONE]\n\n"


class Fleet:
    """Three engines of one pool, and a gateway in front of them."""

    def __init__(self, stack: ExitStack, folder: Path, *, resume: bool | str, **settings: Any) -> None:
        self.engines = [stack.enter_context(Simulator("--itl-ms", "8", model=MODEL)) for _ in range(3)]
        config = base_config(
            main={
                "urls": [engine.url for engine in self.engines],
                "models": [MODEL],
                "idle_timeout": IDLE_SECONDS,
                "max_concurrency": STREAMS,
                **settings,
            }
        )
        config["failover"] = {"resume": resume}
        self.gateway = stack.enter_context(Gateway(config, folder))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


@pytest.fixture(scope="module")
def alone() -> Iterator[Simulator]:
    """The engine whose answers are the right ones."""
    with Simulator("--itl-ms", "0", model=MODEL) as engine:
        yield engine


def body(number: int, *, usage: bool = True) -> tuple[str, dict[str, Any]]:
    """A call of its own kind: chat and completions, with and without a stop string, all with characters of many bytes."""
    path = COMPLETIONS if number % 3 == 2 else CHAT
    ask: dict[str, Any] = {"prompt": f"物語 {number}"} if path == COMPLETIONS else {}
    if path == CHAT:
        ask = {"messages": [{"role": "user", "content": f"お話 {number}"}]}
    if number % 4 == 1:
        ask["stop"] = ["never in there at all"]
    if usage:
        ask["stream_options"] = {"include_usage": True}
    return path, {"model": MODEL, "stream": True, "max_tokens": TOKENS, "seed": number, "temperature": 0, **ask}


def expected(alone: Simulator, number: int) -> tuple[str, dict[str, int]]:
    """Text and usage of an undisturbed answer."""
    path, ask = body(number)
    with httpx.Client(verify=False) as client:
        return read(client.post(alone.url + path, json=ask).raise_for_status().content)


def read(data: bytes) -> tuple[str, dict[str, int]]:
    chunks = [json.loads(event[6:]) for event in data.split(b"\n\n") if event.startswith(b"data: {")]
    parts = [choice.get("delta", choice) for chunk in chunks for choice in chunk.get("choices", ())]
    counts = [chunk["usage"] for chunk in chunks if "usage" in chunk]
    assert len(counts) <= 1
    return "".join(part.get("content") or part.get("text") or "" for part in parts), counts[0] if counts else {}


class Streams:
    """Live streams through a gateway; `begun` is set when each has had some text."""

    def __init__(self, gateway: Gateway, count: int) -> None:
        self._gateway = gateway
        self._waiting = count
        self.begun = asyncio.Event()
        self.data = [b""] * count

    async def run(self, session: aiohttp.ClientSession) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(len(self.data)):
                group.create_task(self._one(session, number))

    async def _one(self, session: aiohttp.ClientSession, number: int) -> None:
        path, ask = body(number)
        async with session.post(self._gateway.http + path, json=ask) as response:
            assert response.status == 200, await response.text()
            events = 0
            async for chunk in response.content.iter_any():
                self.data[number] += chunk
                before, events = events, events + chunk.count(b"data:")
                if before < 5 <= events:
                    self._waiting -= 1
                    if not self._waiting:
                        self.begun.set()


async def through(gateway: Gateway, count: int, strike: Callable[[], None]) -> list[bytes]:
    """What the clients got of so many streams, when `strike` is called in the middle of all."""
    streams = Streams(gateway, count)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.timeout(60):
        running = asyncio.create_task(streams.run(session))
        await streams.begun.wait()
        strike()
        await running
    return streams.data


def rests(gateway: Gateway) -> None:
    """Return when nothing is under way any more."""
    until = time.monotonic() + 5
    while gateway.metric("lexora_active_requests") or gateway.metric("lexora_endpoint_in_flight"):
        assert time.monotonic() < until, "something is still under way"


async def post(client: httpx.AsyncClient, gateway: Gateway, number: int) -> bytes:
    path, ask = body(number)
    return (await client.post(gateway.http + path, json=ask)).content


async def test_every_kind_of_death(stack: ExitStack, tmp_path: Path, alone: Simulator) -> None:
    fleet = Fleet(stack, tmp_path, resume=True)
    right = [expected(alone, number) for number in range(6)]
    async with httpx.AsyncClient(verify=False, timeout=30) as client:
        for how in ("rst", "fin", "error", "abort", "eof"):
            for engine in fleet.engines[:2]:
                engine.fault(f"die_after=17;how={how}", count=1)
            answers = await asyncio.gather(*(post(client, fleet.gateway, number) for number in range(6)))
            for number, data in enumerate(answers):
                assert read(data) == right[number]
                assert data.endswith(DONE)
            assert any(engine.stats()["faults"].get("die_after") for engine in fleet.engines[:2])
            for engine in fleet.engines[:2]:
                engine.clear()


async def test_two_engines_of_three(stack: ExitStack, tmp_path: Path, alone: Simulator) -> None:
    fleet = Fleet(stack, tmp_path, resume=True)

    def strike() -> None:
        fleet.engines[0].kill()
        fleet.engines[1].kill()

    found = await through(fleet.gateway, 12, strike)
    assert [read(data) for data in found] == [expected(alone, number) for number in range(12)]
    assert not any(b'token_ids":[' in data for data in found)
    rests(fleet.gateway)


async def test_a_client_that_forbids_it_gets_the_error(stack: ExitStack, tmp_path: Path) -> None:
    fleet = Fleet(stack, tmp_path, resume=True)
    for engine in fleet.engines:
        engine.fault("die_after=17;how=rst")
    path, ask = body(0)
    async with httpx.AsyncClient(verify=False, timeout=30) as client:
        answer = await client.post(fleet.gateway.http + path, json=ask, headers={"x-lexora-resume": "never"})
    assert DONE not in answer.content
    assert sum(engine.stats()["requests"] for engine in fleet.engines) == 1


async def test_by_text_where_engines_give_no_ids(stack: ExitStack, tmp_path: Path, alone: Simulator) -> None:
    fleet = Fleet(stack, tmp_path, resume="text", type="openai_compatible")
    for engine in fleet.engines[:2]:
        engine.fault("die_after=17;how=rst", count=1)
    async with httpx.AsyncClient(verify=False, timeout=30) as client:
        answers = await asyncio.gather(*(post(client, fleet.gateway, number) for number in range(12)))
    for number, data in enumerate(answers):
        assert data.endswith(DONE)
        text, usage = read(data)
        assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
        assert text[:40] == expected(alone, number)[0][:40]
    assert fleet.gateway.metric("lexora_streams_resumed_total") >= 1


@pytest.mark.parametrize(("mode", "kind"), [(True, "vllm"), ("text", "openai_compatible")])
async def test_all_engines_of_a_stream_name_the_model_that_was_asked(
    stack: ExitStack, tmp_path: Path, mode: bool | str, kind: str
) -> None:
    """Also those that go on, with another id, shape and name of their own."""
    asked, mapping = 'the "fast" 犬', {'the "fast" 犬': MODEL}
    fleet = Fleet(stack, tmp_path, resume=mode, type=kind, models=[asked], model_mapping=mapping)
    for engine in fleet.engines[:2]:
        engine.fault("die_after=17;how=rst", count=1)
    async with httpx.AsyncClient(verify=False, timeout=30) as client:
        calls = [(path, ask | {"model": asked}) for path, ask in map(body, range(6))]
        answers = await asyncio.gather(*(client.post(fleet.gateway.http + path, json=ask) for path, ask in calls))
    for answer in answers:
        chunks = [json.loads(event[6:]) for event in answer.content.split(b"\n\n") if event.startswith(b"data: {")]
        assert {chunk["model"] for chunk in chunks} == {asked}
        assert answer.content.endswith(DONE)
    assert fleet.gateway.metric("lexora_streams_resumed_total") >= 1
