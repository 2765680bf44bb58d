"""How much memory and how many file descriptors this process may use."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

MAX_DESCRIPTORS = 2**20

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


class _Sharing:
    processes = 1


def share_memory(processes: int) -> None:
    """This process is one of so many of a gateway: `usable_memory` is its share from now on."""
    _Sharing.processes = processes


def usable_memory() -> int:
    """Bytes of the machine's memory, or of the narrowest cgroup around this process where that has fewer; its share of it."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min((physical, *_limits(_OWN_CGROUPS, _CGROUPS))) // _Sharing.processes


def usable_cores() -> int:
    """Cores that this process may use: of the machine, by its affinity, and by the quota of cgroups (version 2)."""
    cores = len(os.sched_getaffinity(0))
    for line in _lines(_OWN_CGROUPS):
        _, controllers, path = line.split(":", 2)
        group = Path(path.strip("/"))
        for each in (group, *group.parents) if controllers == "" else ():
            quota, *period = (" ".join(_lines(_CGROUPS / each / "cpu.max")) or "max").split()
            if quota.isdigit() and period:
                cores = min(cores, max(round(int(quota) / int(period[0])), 1))
    return cores


def usable_descriptors() -> int:
    """File descriptors that this process may have, after its soft limit was raised to the hard one.

    The soft limit is low for the sake of programs that use select(2), which this one does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return min(soft, MAX_DESCRIPTORS) if soft != resource.RLIM_INFINITY else MAX_DESCRIPTORS


def _limits(own: Path, mounted: Path) -> Iterator[int]:
    """Limits of the process's cgroups and of all those around them; cgroups(7), version 2 and the memory controller of 1."""
    for line in _lines(own):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folder, name = mounted, "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = mounted / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = Path(path.strip("/"))
        for each in (group, *group.parents):
            yield from (int(limit) for limit in _lines(folder / each / name) if limit.isdigit())


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:  # no such cgroup, or another system
        return []


def resident_bytes() -> int:
    """The memory that this process has now; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
