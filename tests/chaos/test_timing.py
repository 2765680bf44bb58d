"""Tokens come when the engine sends them: of 50 streams, 99 of 100 tokens are there before half of the beat has passed.

How many milliseconds the gateway adds is measured by `make bench`.
"""

import asyncio
import re
import time
from collections.abc import Iterator

import pytest

from tests.support import wire
from tests.support.process import REPOSITORY, Process, python
from tests.support.servers import Gateway, calm_config

STREAMS = 50
BEAT_MS = 20
TOKENS = 100
ROUNDS = 4
ALLOWED_SECONDS = BEAT_MS / 1000 / 2
SENT_AT = re.compile(rb'"content":"([\d.]+)"')
BODY = b'{"model":"m","messages":[{"role":"user","content":"go on"}],"stream":true}'

pytestmark = pytest.mark.serial


@pytest.fixture
def engine() -> Iterator[str]:
    with Process(python("tests.support.beat_engine", str(BEAT_MS), str(TOKENS)), cwd=REPOSITORY) as process:
        yield process.wait_for(r"on (http://\S+)").group(1)


@pytest.fixture
def gateway(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(calm_config(main={"url": engine}), tmp_path_factory.mktemp("gateway")) as process:
        yield process


async def one_stream(base: str) -> list[float]:
    """How long each token was under way, in seconds."""
    host, _, port = base.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(wire.request("/v1/chat/completions", BODY, headers={"connection": "close"}))
        under_way: list[float] = []
        while data := await reader.read(65536):
            now = time.monotonic()
            under_way += [now - float(sent) for sent in SENT_AT.findall(data)]
        return under_way
    finally:
        writer.close()
        await writer.wait_closed()


async def delays(base: str) -> list[float]:
    """How long each token of 50 streams was under way, sorted."""
    found = await asyncio.gather(*(one_stream(base) for _ in range(STREAMS)))
    assert [len(each) for each in found] == [TOKENS] * STREAMS, "every token must come"
    return sorted(delay for each in found for delay in each)


async def added(engine: str, gateway: Gateway) -> float:
    """The 99th percentile of the delay through the gateway, less that of the way without it; seconds."""
    direct = await delays(engine)
    through = await delays(gateway.http)
    return through[len(through) * 99 // 100] - direct[len(direct) * 99 // 100]


async def test_the_gateway_keeps_the_engines_beat(engine: str, gateway: Gateway) -> None:
    # Other processes on the machine can only add to the delay, so the best of a few rounds is the gateway's own.
    rounds: list[float] = []
    while len(rounds) < ROUNDS and not (rounds and rounds[-1] < ALLOWED_SECONDS):
        rounds.append(await added(engine, gateway))
    told = [round(each * 1000, 2) for each in rounds]
    assert rounds[-1] < ALLOWED_SECONDS, f"added at the 99th percentile, in ms, round by round: {told}"
