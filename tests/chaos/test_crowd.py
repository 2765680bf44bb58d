"""A crowd of clients that hold connections, bodies and streams, and guess keys: a client beside it is served.

2,000 idle connections, 500 bodies that come byte by byte, 200 streams that are never read, 100 that guess keys.
"""

import asyncio
import json
import signal
import time
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.support import load, wire
from tests.support.crowd import BODIES, IDLE, STALLED
from tests.support.keys import ALL, add_key
from tests.support.process import Process, python
from tests.support.queueing import CHAT
from tests.support.servers import base_config
from tests.support.watched import WatchedGateway

PHASES = 3
PER_SECOND = 40
PHASE_SECONDS = 3.0
ANSWER_MS = 50
BOUND_SECONDS = 3.0  # of a stalled stream and of a silent body
MEMORY = 1.5  # what stays, as a ratio
TIMES = 2.0  # of the p99 of a client
SHARE = 0.95  # some are always between two of their connections
HELD = {"idle": IDLE, "bodies": BODIES, "stalled": STALLED}


class Beside(Process):
    """The crowd, in a process of its own."""

    def __init__(self, gateway: WatchedGateway, key: str) -> None:
        super().__init__(python("tests.support.crowd", gateway.http, gateway.grpc, key))

    def now(self) -> Any:
        """What it last said of itself."""
        lines = [line for line in list(self.lines) if line.startswith("CROWD ")]
        return json.loads(lines[-1].removeprefix("CROWD ")) if lines else {"held": {}, "said": {}, "calm": False}


async def reached(beside: Beside, held: dict[str, int]) -> None:
    """Return when it holds as many."""

    def there() -> bool:
        assert beside.alive, beside.output
        now = beside.now()["held"]
        return all(SHARE * count <= now.get(kind, 0) <= count for kind, count in held.items())

    await asyncio.to_thread(wire.wait_until, there, f"{held}, not {beside.now()}", 30.0)


def cut(gateway: WatchedGateway) -> float:
    """Calls that the gateway has ended because their clients read nothing."""
    return gateway.metric("lexora_requests_total", status="499")


def busy(gateway: WatchedGateway) -> float:
    """Calls under way, and attempts at engines."""
    return gateway.metric("lexora_active_requests") + gateway.metric("lexora_endpoint_in_flight")


async def p99(one: load.Client, key: str) -> float:
    """Of calls that are made at a steady rate, whatever becomes of those before."""
    tasks: list[asyncio.Task[load.Answer]] = []
    began, count = time.monotonic(), int(PHASE_SECONDS * PER_SECOND)
    for number in range(count):
        await asyncio.sleep(began + number / PER_SECOND - time.monotonic())
        tasks.append(asyncio.create_task(one.post(CHAT, load.chat("m", 1), authorization=f"Bearer {key}")))
    answers = await asyncio.gather(*tasks)
    refused = [answer for answer in answers if answer.status != 200]
    assert not refused, (len(refused), refused[0].error)
    return sorted(answer.seconds for answer in answers)[int(count * 0.99) - 1]


@pytest.mark.soak
@pytest.mark.timeout(120)
async def test_a_crowd_is_bounded_and_leaves_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client beside it waits no longer than twice: with the crowd on the same cores, where nothing else runs."""
    if "soak" not in request.config.getoption("-m"):
        pytest.skip("make soak")
    monkeypatch.setenv("PYTHONMALLOC", "malloc")  # as the systemd unit sets it: Python's own gives back whole megabytes only
    file = tmp_path / "keys.jsonl"
    normal, crowd = add_key(file, tenant="normal", scopes=ALL).text, add_key(file, tenant="crowd").text
    with Process(python("tests.support.flood_engine", str(ANSWER_MS))) as engine:
        url = engine.wait_ready(r"on (http://\S+)").group(1)
        config = base_config(main={"url": url, "models": ["m"], "max_concurrency": STALLED + 50})
        config["server"] |= {"write_timeout": BOUND_SECONDS, "max_connections": 4000, "max_connections_per_address": 4000}
        config["auth"] = {"mode": "keys", "keys_file": str(file)}
        with WatchedGateway(config, tmp_path, body_silence=BOUND_SECONDS) as gateway:
            gateway.headers = {"x-api-key": normal}
            async with load.client(gateway.http) as one:
                await p99(one, normal)  # what is made once is made
            memory, sockets = gateway.resident(), gateway.sockets()
            async with load.client(gateway.http) as one:
                quiet = [await p99(one, normal) for _ in range(PHASES)]
                with Beside(gateway, crowd) as beside:
                    await reached(beside, HELD)
                    crowded = [await p99(one, normal) for _ in range(PHASES)]
                    said = beside.now()["said"]
                    assert said.keys() >= {"guess 429", "guess RESOURCE_EXHAUSTED"}, said
                    assert not said.keys() & {"guess 200", "guess OK"}, said
                    await asyncio.to_thread(wire.wait_until, lambda: cut(gateway) >= STALLED, "the streams to be cut off")
                    beside.signal(signal.SIGUSR1)
                    await reached(beside, {"idle": IDLE, "bodies": 0, "stalled": 0})
                    assert beside.now()["said"]["body 408"] >= BODIES
                    await asyncio.to_thread(wire.wait_until, lambda: not busy(gateway), "all calls to be over")
            await asyncio.to_thread(wire.wait_until, lambda: gateway.sockets() <= sockets, "all sockets to be closed")
            await asyncio.to_thread(gateway.wait_for, "memory_given_back")
            assert gateway.resident() < MEMORY * memory
    assert median(crowded) <= TIMES * median(quiet), (quiet, crowded)
    print(f"p99 {median(quiet) * 1000:.0f} ms alone, {median(crowded) * 1000:.0f} ms beside the crowd")
