"""A gateway of several workers: its processes, as the system has them."""

import os
from pathlib import Path

from tests.support import wire
from tests.support.servers import Gateway


def workers_of(gateway: Gateway) -> list[int]:
    """Ids of the processes that serve, of those that the supervisor has started."""
    return [pid for pid in children(gateway.pid) if b"lexora_cli" in command_of(pid)]


def children(pid: int) -> list[int]:
    """Ids of the processes that another one has started and that live."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            continue  # it has just ended
    return found


def command_of(pid: int) -> bytes:
    """The command line of a process; empty when there is none, or it waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_gone(pids: list[int], seconds: float = 20.0) -> None:
    """Wait until none of these processes is there."""
    wire.wait_until(lambda: not any(map(command_of, pids)), f"the end of {pids}", seconds)


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
