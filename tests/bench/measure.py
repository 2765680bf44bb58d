"""One run of a load with the CPU that was spent on it, and a round: all cases against all targets."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.bench import procs
from tests.bench.cases import LEAVING, WARM_UP, Case
from tests.bench.engine import Engine, Json, load
from tests.bench.targets import LEXORA, Gateway, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.bench.build import Tools

DIRECT = "direct"
ABORT_LIMIT_S = 5


@dataclass(frozen=True)
class Rig:
    """All that a round needs. `cpus` is the gateway's CPU set, None without pinning."""

    tools: Tools
    engine: Engine
    run: Path
    cpus: procs.Cpus | None
    quick: bool
    thorough: bool
    say: Callable[[str], None]


@dataclass
class Round:
    """Results of one round. `cases[case][target]` is what `run_case` gives; `aborts` what `leave` gives."""

    startup_s: dict[str, float] = field(default_factory=dict)
    idle_mib: dict[str, float] = field(default_factory=dict)
    peak_mib: dict[str, float] = field(default_factory=dict)
    cases: dict[str, dict[str, Json]] = field(default_factory=dict)
    aborts: Json = field(default_factory=dict)


def run_case(rig: Rig, target: Target, case: Case) -> Json:
    """The load generator's results and, of the time it ran, `cpu_us` (µs of CPU per unit of the target's
    process tree, kernel time included; None without a process), `cores` (how many CPUs the target kept busy),
    `rig_cores` (engine and load generator) and `other_cores` (the rest of the machine, host's steal included).
    """
    watched = procs.tree(target.pid) if target.pid else []
    own, engine, busy = procs.cpu_seconds(watched), procs.cpu_seconds([rig.engine.pid]), procs.machine_busy_seconds()
    began = time.monotonic()
    result = load(rig.tools, target.port, *case.arguments(quick=rig.quick, direct=target.pid is None))
    elapsed = time.monotonic() - began
    own = procs.cpu_seconds(watched) - own
    measuring = procs.cpu_seconds([rig.engine.pid]) - engine + result["cpu_s"]
    busy = procs.machine_busy_seconds() - busy
    units = result["ok"] if case.unit == "call" else result["chunks"]
    result["cpu_us"] = own * 1e6 / units if watched and units else None
    result["cores"] = own / elapsed
    result["rig_cores"] = measuring / elapsed
    result["other_cores"] = max(0.0, (busy - own - measuring) / elapsed)
    return result


def warm_up(rig: Rig, target: Target) -> None:
    """Imports, caches, connection pools and the interpreter's own specialisation are not the subject."""
    for options in WARM_UP:
        load(rig.tools, target.port, *options, "--seconds", 0.5 if rig.quick else 1.5)


def leave(rig: Rig, target: Target) -> Json:
    """Hangs up on streams after three tokens: `left` of them, `aborted` at the engine within `seconds`."""
    rig.engine.settle()
    before = rig.engine.stats()["aborted"]
    left: int = load(rig.tools, target.port, *LEAVING)["hung_up"]
    began = time.monotonic()
    procs.wait_for(lambda: rig.engine.stats()["aborted"] - before >= left, ABORT_LIMIT_S)
    return {
        "left": left,
        "aborted": rig.engine.stats()["aborted"] - before,
        "seconds": time.monotonic() - began,
    }


def measure_round(rig: Rig, gateways: Sequence[Gateway], cases: Sequence[Case]) -> Round:
    """Starts the gateways, runs each case direct and then through each of them, and ends what it started.

    All targets live side by side (idle ones cost nothing), so that the figures of a case are seconds apart.
    """
    result = Round()
    started: list[Gateway] = []
    targets: list[Target] = []
    try:
        for gateway in gateways:
            rig.say(f"starting {gateway.name}")
            started.append(gateway)
            targets.append(gateway.start())
            result.startup_s[gateway.name] = gateway.startup_s
        for target in targets:
            result.idle_mib[target.name] = memory(target, "VmRSS")
            rig.say(f"warming up {target.name}")
            warm_up(rig, target)
        for case in cases:
            result.cases[case.name] = {}
            for target in (Target(DIRECT, rig.engine.port), *targets):
                rig.say(f"{case.name}: {target.name}")
                result.cases[case.name][target.name] = run_case(rig, target, case)
                rig.engine.settle()
            for gateway in started:
                gateway.trim_log()
        for target in targets:
            if target.name == LEXORA:
                rig.say("hanging up on streams")
                result.aborts = leave(rig, target)
            result.peak_mib[target.name] = memory(target, "VmHWM")
    finally:
        for gateway in started:
            gateway.stop()
    return result


def memory(target: Target, field_name: str) -> float:
    """MiB of a target's process tree: VmRSS is now, VmHWM the most so far."""
    return procs.memory_mib(procs.tree(target.pid), field_name) if target.pid else 0.0
