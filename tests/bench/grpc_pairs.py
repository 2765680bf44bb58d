"""What the gRPC side of Lexora costs above grpc.aio itself: the same messages from a server that does nothing else."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.bench import procs
from tests.bench.build import RigError
from tests.bench.pairs import Pair, lexora
from tests.bench.procs_net import listening_ports
from tests.bench.targets import CONFIG, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.measure import Rig

BAR = 1.3
# What is asked, how many at once, and what the CPU is divided by.
KINDS = {"generate": (32, "ok", "call"), "stream": (50, "messages", "streamed message")}


def grpc_side(rig: Rig) -> Iterator[Pair]:
    """CPU of the server for a unary call, and for a message of a steady stream."""
    with lexora(rig, "grpc", CONFIG) as target:
        assert target.pid
        [port] = set(listening_ports(procs.tree(target.pid))) - {target.port}
        recorded = rig.run / "recorded.json"
        recorded.write_text(_run("grpc_load", port, "record"))
        with procs.on_cpus(rig.cpus):
            command = [sys.executable, "-m", "tests.bench.grpc_echo", str(recorded)]
            echo = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        try:
            assert echo.stdout
            found = re.search(rb":(\d+)", echo.stdout.readline())
            if not found:
                raise RigError("the gRPC echo did not start")
            for kind, (at_once, count, unit) in KINDS.items():
                sides = ((echo.pid, int(found[1])), (target.pid, port))
                base, value = _in_turn(rig, kind, at_once, count, sides)
                title = f"gRPC, CPU per {unit}: echo on grpc.aio, Lexora"
                yield Pair(f"grpc-{kind}", title, "µs", base, value, BAR)
        finally:
            procs.stop(echo)
            if echo.stdout:
                echo.stdout.close()


def _in_turn(rig: Rig, kind: str, at_once: int, count: str, sides: tuple[tuple[int, int], ...]) -> list[float]:
    found: list[list[float]] = [[] for _ in sides]
    for turn in range(4 if rig.quick else 6):
        for (pid, port), values in zip(sides, found, strict=True):
            before = procs.cpu_seconds(procs.tree(pid))
            counts = json.loads(_run("grpc_load", port, kind, at_once, 0.5 if rig.quick else 2.0))
            spent = procs.cpu_seconds(procs.tree(pid)) - before
            if turn:  # the first turn is the warm-up
                values.append(spent * 1e6 / counts[count])
    return [statistics.median(values) for values in found]


def _run(module: str, *arguments: object) -> str:
    command = [sys.executable, "-m", f"tests.bench.{module}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise RigError(f"{' '.join(command)} failed:\n{done.stderr[-2000:].strip()}")
    return done.stdout
