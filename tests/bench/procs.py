"""What a process tree used, from /proc, and how it is started and ended."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Iterator

TICKS = os.sysconf("SC_CLK_TCK")
Cpus = frozenset[int]


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat after the command's name (index 0 is the state); None when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None


def tree(root: int) -> list[int]:
    """The process and all its descendants, as pids."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU seconds of these processes, kernel time included, and of children they waited for."""
    return sum(int(x) for pid in pids if (fields := _stat(pid)) for x in fields[11:15]) / TICKS


def memory_mib(pids: Iterable[int], field: str = "VmRSS") -> float:
    """MiB of a field of /proc/PID/status, summed: VmRSS is now, VmHWM is the highest so far."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(field + ":"):
                    total += int(line.split()[1])
    return total / 1024


def waits(pid: int) -> int:
    """How often the main thread of a process has given up its CPU because it had to wait for something."""
    status = Path(f"/proc/{pid}/task/{pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def machine_busy_seconds() -> float:
    """CPU seconds that all CPUs were busy or taken away by the host, since boot."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS


def split_cpus() -> tuple[Cpus, Cpus] | None:
    """One CPU for the rig and another for the gateway; None when there is just one."""
    mine = sorted(os.sched_getaffinity(0))
    return (frozenset(mine[:1]), frozenset(mine[1:2])) if len(mine) > 1 else None


def raise_descriptors(most: int = 65536) -> None:
    """Let this process, and those it starts, have as many open files as they may: thousands of streams are open at a time."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = most if hard == resource.RLIM_INFINITY else min(hard, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))


@contextlib.contextmanager
def on_cpus(cpus: Cpus | None) -> Iterator[None]:
    """Processes started inside run on these CPUs (an affinity is inherited)."""
    before = os.sched_getaffinity(0)
    if cpus:
        os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def wait_for(condition: Callable[[], bool], seconds: float, pause: float = 0.01) -> bool:
    """Looks at `condition` until it holds; False after `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(pause)
    return True


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that we started, and what it started: asked first, killed after 5 s."""
    pids = tree(process.pid) if process.poll() is None else []
    for signum in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signum)
        if wait_for(lambda: process.poll() is not None and not any(map(_alive, pids)), 5):
            break
    process.wait()


def _alive(pid: int) -> bool:
    fields = _stat(pid)
    return fields is not None and fields[0] != "Z"
