"""The coordinator of workers, as a process: it serves while its parent lives, and a worker's death is noticed at once."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from lexora_router.state.link import StateLink
from lexora_router.state.port import Batch
from lexora_router.state.socket_state import SocketState
from tests.support.process import Process

PARENT = """
import os, sys, time
from lexora_router.state.coordinator import coordinate
child = os.fork()
if child == 0:
    coordinate(sys.argv[1])
    os._exit(0)
print("coordinator", child, flush=True)
time.sleep(600)
"""


async def until(true: "object", seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def link(path: Path) -> StateLink:
    return StateLink(SocketState(str(path)), {}, timeout=1.0, clock=time.monotonic, replicas=2)


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_it_outlives_signals_and_ends_with_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "coordinator"
    with Process([sys.executable, "-c", PARENT, str(path)], fresh=True) as parent:
        pid = int(parent.wait_for(r"coordinator (\d+)")[1])
        await until(path.exists)
        assert path.stat().st_mode & 0o777 == 0o600
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
        one = link(path)
        await one.start()
        assert (one.degraded, one.members, one.reason) == (False, 1, "")
        parent.kill()
        await until(lambda: gone(pid))
        await until(lambda: one.degraded)
        assert "coordinator" in one.reason
        await one.leave()


async def test_what_a_dead_worker_held_is_free_before_its_ttl(tmp_path: Path) -> None:
    path = tmp_path / "coordinator"
    with Process([sys.executable, "-c", PARENT, str(path)], fresh=True) as parent:
        parent.wait_for(r"coordinator (\d+)")
        await until(path.exists)
        one, dead = link(path), SocketState(str(path))
        await one.start()
        await dead.open()
        assert (await dead.exchange(Batch("dead", 60.0, 1, join=True))).members == 2
        await until(lambda: one.members == 2)
        await dead.close()  # without leave, as a process that is killed
        await until(lambda: one.members == 1)
        await one.leave()


async def test_a_loop_that_was_busy_is_no_fault_of_the_store(tmp_path: Path) -> None:
    path = tmp_path / "coordinator"
    with Process([sys.executable, "-c", PARENT, str(path)], fresh=True) as parent:
        parent.wait_for(r"coordinator (\d+)")
        await until(path.exists)
        one = StateLink(SocketState(str(path)), {}, timeout=0.05, clock=time.monotonic, tick=60)
        await one.start()
        await until(lambda: not one.degraded)
        failed = one.tally.failed
        for _ in range(10):
            begun = one.begun
            waiting = asyncio.create_task(one.exchanged())
            while one.begun == begun:  # noqa: ASYNC110
                await asyncio.sleep(0)
            time.sleep(0.1)  # noqa: ASYNC251 - twice as long as the store may take, which has answered meanwhile
            await waiting
        assert (one.degraded, one.tally.failed) == (False, failed)
        await one.leave()


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x02\x91\xa0", b"\x00\x00\x00\x01\xc1"])
async def test_garbage_ends_its_connection_only(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "coordinator"
    with Process([sys.executable, "-c", PARENT, str(path)], fresh=True) as parent:
        parent.wait_for(r"coordinator (\d+)")
        await until(path.exists)
        one = link(path)
        await one.start()
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(garbage)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await one.exchange()
        assert not one.degraded
        await one.leave()
