"""Rate limits under load: what is let through is what an exact bucket would let through, in requests and in tokens."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support import load
from tests.support.load import Answer, chat
from tests.support.queueing import CHAT, MODEL, chats
from tests.support.servers import Gateway, Simulator, base_config

CALLS = 1000
TIMES_THE_LIMIT = 4
RATE, BURST = 100.0, 20
TOKENS_PER_MINUTE = 6000
WITHIN = 0.01
TOKENS_WITHIN = 0.03  # the bucket fills while the last answers are on their way


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator("--itl-ms", "1", "--natural-length", "8", model=MODEL) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def clean(sim: Simulator) -> None:
    sim.clear()


def gateway_for(sim: Simulator, folder: Path, **limits: Any) -> Gateway:
    config = base_config(main={"url": sim.url, "models": [MODEL], "max_concurrency": None})
    return Gateway(config | {"rate_limit": {"enabled": True, "default_rate": RATE, "default_burst": BURST} | limits}, folder)


async def paced(one: Callable[[int], Coroutine[Any, Any, Answer]], calls: int, per_second: float) -> list[Answer]:
    """Make calls at an even pace, whatever comes of them."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number in range(calls):
            await asyncio.sleep(max(0.0, begin + number / per_second - loop.time()))
            tasks.append(group.create_task(one(number)))
    answers = [task.result() for task in tasks]
    assert {answer.status for answer in answers} == {200, 429}
    return answers


def exact(instants: Sequence[float]) -> int:
    """How many of the calls at these instants a bucket lets through that makes no mistake."""
    level, at, taken = float(BURST), instants[0], 0
    for now in sorted(instants):
        level, at = min(BURST, level + (now - at) * RATE), now
        if level >= 1:
            level, taken = level - 1, taken + 1
    return taken


async def test_1000_calls_at_4_times_the_limit(sim: Simulator, tmp_path: Path) -> None:
    with gateway_for(sim, tmp_path) as gateway:
        async with load.client(gateway.http) as one:
            body = chat(MODEL, 1, user="someone")
            answers = await paced(lambda _: one.post(CHAT, body), CALLS, TIMES_THE_LIMIT * RATE)
    admitted = sum(answer.status == 200 for answer in answers)
    # The gateway got each call between its sending and its end.
    expected = sorted((exact([answer.sent for answer in answers]), exact([answer.ended for answer in answers])))
    seconds = answers[-1].sent - answers[0].sent
    print(
        f"\n{CALLS} calls in {seconds:.2f} s ({CALLS / seconds:.0f} a second, limit {RATE:g}): {admitted} admitted, "
        f"an exact bucket {expected[0]} to {expected[1]}"
    )
    assert CALLS / seconds > 1.5 * RATE, "too slow a machine to tell"
    assert expected[0] * (1 - WITHIN) <= admitted <= expected[1] * (1 + WITHIN)
    assert len(chats(sim)) == admitted, "what is refused never reaches an engine"
    check_every_answer(answers)


def check_every_answer(answers: list[Answer]) -> None:
    for answer in answers:
        assert answer.headers["x-ratelimit-limit-requests"] == str(BURST)
        assert 0 <= int(answer.headers["x-ratelimit-remaining-requests"]) < BURST
        assert answer.headers["x-ratelimit-reset-requests"]
        if answer.status == 429:
            assert answer.error["code"] == "rate_limited"
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["x-ratelimit-remaining-requests"] == "0"


def used(answer: Answer) -> int:
    """All tokens of a streamed answer, as the engine counted them."""
    events = [line.removeprefix(b"data: ") for line in answer.body.split(b"\n") if line.startswith(b"data: {")]
    usage = msgspec.json.decode(events[-1])["usage"]
    return int(usage["total_tokens"])


def estimate(body: dict[str, Any]) -> int:
    """What the gateway reserves for a call: four bytes are a token, and all of `max_tokens` may come."""
    return len(msgspec.json.encode(body)) // 4 + int(body["max_tokens"])


def streamed(tokens: int, **more: Any) -> dict[str, Any]:
    options = {"stream": True, "stream_options": {"include_usage": True}, "user": "s"}
    return {"model": MODEL, "messages": [{"role": "user", "content": "go"}], "max_tokens": tokens} | options | more


def most_over(answers: list[Answer], first: float) -> float:
    """By how many tokens the answers that had ended at any instant were above what there was by then, at most."""
    total, worst = 0, float("-inf")
    for answer in sorted(answers, key=lambda each: each.ended):
        total += used(answer)
        worst = max(worst, total - TOKENS_PER_MINUTE - (answer.ended - first) * TOKENS_PER_MINUTE / 60)
    return worst


async def run_streams(
    sim: Simulator, folder: Path, body: dict[str, Any], per_second: float
) -> tuple[list[Answer], float, float]:
    """The streams that were let through, the tokens that an exact bucket had for them, and the most above it."""
    limits = {"default_rate": 1e6, "default_burst": 1_000_000, "tokens_per_minute": TOKENS_PER_MINUTE}
    with gateway_for(sim, folder, **limits) as gateway:
        async with load.client(gateway.http) as one:
            answers = await paced(lambda _: one.post(CHAT, body), CALLS, per_second)
            late = time.monotonic()
    first = answers[0].sent
    admitted = [answer for answer in answers if answer.status == 200]
    for answer in answers:
        assert answer.headers["x-ratelimit-limit-tokens"] == str(TOKENS_PER_MINUTE)
        assert 0 <= int(answer.headers["x-ratelimit-remaining-tokens"]) < TOKENS_PER_MINUTE
    assert len(chats(sim)) == len(admitted)
    return admitted, TOKENS_PER_MINUTE + (late - first) * TOKENS_PER_MINUTE / 60, most_over(admitted, first)


async def test_streams_count_by_their_tokens(sim: Simulator, tmp_path: Path) -> None:
    body = streamed(8, ignore_eos=True)
    admitted, available, over = await run_streams(sim, tmp_path, body, TIMES_THE_LIMIT * RATE)
    total = sum(used(answer) for answer in admitted)
    print(
        f"\n{CALLS} streams of {used(admitted[0])} tokens, {estimate(body)} reserved: {len(admitted)} admitted "
        f"with {total} tokens, an exact bucket had {available:.0f}; at most {over:.0f} above it at any time"
    )
    assert CALLS * used(admitted[0]) > 3 * available, "the streams must ask for far more than there is"
    assert total == pytest.approx(available, rel=TOKENS_WITHIN)
    assert over <= estimate(body)


async def test_streams_that_reserve_far_more_than_they_use(sim: Simulator, tmp_path: Path) -> None:
    body = streamed(400)  # and they end by themselves after about ten
    admitted, available, over = await run_streams(sim, tmp_path, body, TIMES_THE_LIMIT * RATE)
    total = sum(used(answer) for answer in admitted)
    print(
        f"\n{CALLS} streams of about {total / len(admitted):.0f} tokens, {estimate(body)} reserved: "
        f"{len(admitted)} admitted with {total} tokens, an exact bucket had {available:.0f}; "
        f"at most {over:.0f} above it at any time"
    )
    assert over <= estimate(body)
    # Streams under way hold what they reserved, the more the busier the machine. Were it kept, total would be a tenth.
    assert available / 2 <= total, "what was reserved and not used must come back"
