"""10,000 calls with bodies of a megabyte, with the bounds of a start that names none: they do not take 10 GB."""

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import wire
from tests.support.many_bodies import MIB
from tests.support.process import Process, python
from tests.support.servers import Gateway, base_config
from tests.support.strangers import resident

CALLS = 10_000
NEVER_MS = 10**7
TIMES = 1.3  # of the bodies that wait: what else a call takes, and what bodies leave on their way
REFUSED = {"http": {"429+", "503+"}, "grpc": {"RESOURCE_EXHAUSTED+", "UNAVAILABLE+"}}


class Bodies(Process):
    """The clients, in a process of their own."""

    def __init__(self, way: str, gateway: Gateway) -> None:
        target = gateway.http if way == "http" else gateway.grpc
        super().__init__(python("tests.support.many_bodies", way, target, f"{gateway.http}/stats", str(CALLS)))

    def now(self) -> Any:
        """What they last said."""
        assert self.alive, self.output[-2000:]
        lines = [line for line in list(self.lines) if line.startswith("BODIES ")]
        return json.loads(lines[-1].removeprefix("BODIES ")) if lines else {"sent": 0, "came_to": {}}


def peak(gateway: Gateway) -> int:
    """The most bytes that the process has had in memory."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{gateway.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def waiting(gateway: Gateway) -> int:
    """Calls in the queue; -1 where the gateway has too much to do to say so."""
    try:
        return int(gateway.metric("lexora_queue_depth", backend="main"))
    except httpx.TransportError:
        return -1


@pytest.mark.soak
@pytest.mark.timeout(500)
@pytest.mark.parametrize("way", ["http", "grpc"])
async def test_bodies_that_wait_are_bounded_in_all(request: pytest.FixtureRequest, tmp_path: Path, way: str) -> None:
    if "soak" not in request.config.getoption("-m"):
        pytest.skip("make soak")
    with Process(python("tests.support.flood_engine", str(NEVER_MS))) as engine:
        url = engine.wait_ready(r"on (http://\S+)").group(1)
        main = {"url": url, "models": ["m"], "max_concurrency": 1, "first_token_timeout": 3600.0}
        config = base_config(main=main)
        # All of them come from one address here. What bounds their bytes is as it is by default.
        config["server"] |= {"max_connections": CALLS + 100, "max_connections_per_address": CALLS + 100}
        config["queue"] = {"max_size": CALLS, "timeout": 3600.0}
        with Gateway(config, tmp_path) as gateway:
            before = resident(gateway.pid)
            with Bodies(way, gateway) as bodies:

                def over() -> bool:
                    now = bodies.now()
                    time.sleep(1)  # the gateway has other work
                    return bool(now["sent"] == CALLS and sum(now["came_to"].values()) + waiting(gateway) >= CALLS - 1)

                await asyncio.to_thread(wire.wait_until, over, "all to wait or be refused", 440.0)
                came_to, held, most = bodies.now()["came_to"], waiting(gateway), peak(gateway)
            print(f"{way}: {held} wait, {came_to}, peak {most / MIB:.0f} MiB")
            assert set(came_to) <= REFUSED[way]
            assert sum(came_to.values()) + held == CALLS - 1
            assert most - before < TIMES * held * MIB
            assert most < 0.8 * CALLS * MIB
            await asyncio.to_thread(wire.wait_until, lambda: waiting(gateway) == 0, "all to be gone", 60.0)
            await asyncio.to_thread(
                wire.wait_until, lambda: resident(gateway.pid) < before + 100 * MIB, "memory to be back", 30.0
            )
