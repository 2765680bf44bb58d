import asyncio
import errno
import time
from typing import Any

import pytest

from lexora_router.workers.plan import Plan
from lexora_router.workers.running import Running
from lexora_router.workers.supervisor import Supervisor


class Worker:
    """A worker that has served, and has died."""

    number, pid, kept = 1, 7, b""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.adopted: dict[int, bytes] = {}
        self.serves = asyncio.Event()
        self.serves.set()
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.ended.set_result(-9)


async def test_a_worker_for_which_the_machine_has_no_room_is_started_later(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    supervisor = Supervisor(Plan(["worker"], 1, [], {}, drain_timeout=1.0, json_log=True))
    starts = 0

    def start(*_: Any) -> Worker:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        supervisor._stop.set()
        return Worker()

    monkeypatch.setattr(Running, "start", start)
    died: Any = Worker()
    (slot,) = supervisor._slots
    slot.worker = died
    await supervisor._watch(slot, died)
    await asyncio.gather(*supervisor._tasks)
    assert starts == 2
    assert capfd.readouterr().out.count("worker_not_started") == 1
