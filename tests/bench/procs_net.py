"""Which ports a process tree listens on: a gateway told to take a free port is found without reading its words."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp


def listening_ports(pids: Iterable[int]) -> list[int]:
    """TCP ports on which any of these processes accepts connections, in ascending order."""
    pids = list(pids)
    sockets: set[str] = set()
    for pid in pids:
        sockets |= _socket_inodes(pid)
    return sorted({port for pid in pids[:1] for port, inode in _listeners(pid) if inode in sockets})


def _socket_inodes(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    return found


def _listeners(pid: int) -> list[tuple[int, str]]:
    """(port, inode) of each listening socket in the process's network namespace."""
    found = []
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTEN:
                    found.append((int(fields[1].rpartition(":")[2], 16), fields[9]))
    return found
