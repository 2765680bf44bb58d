"""Cost grows with the work only: the same load against two Lexoras, in turn, of which one has more to look after."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.bench import procs
from tests.bench.build import RigError
from tests.bench.cases import STREAM, UNARY
from tests.bench.engine import load
from tests.bench.measure import memory, run_case, warm_up
from tests.bench.targets import CONFIG, LEXORA, Gateway, Target, client_command, serve_command
from tests.support.valkey import ValkeyProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.cases import Case
    from tests.bench.measure import Rig

GROWTH = 1.10
FLAT = 1.03
STREAM_KIB = 20.0
OPERATIONS = 0.1
OPEN_LIMIT_S = 60
CORES_FOR_TWO = 4  # two for the workers, two for the engine and the load


@dataclass(frozen=True)
class Pair:
    """Two figures in `unit`. `bar` is the most that `value` may be: a multiple of `base`, or in `unit` without one."""

    name: str
    title: str
    unit: str
    base: float | None
    value: float
    bar: float | None

    @property
    def ratio(self) -> float | None:
        """`value` in terms of `base`; None without one."""
        return self.value / self.base if self.base else None

    @property
    def over(self) -> bool | None:
        """True when it is above the bar; None when that cannot be said."""
        found = self.value if self.base is None else self.ratio
        return None if self.bar is None or found is None else found > self.bar


def backends(rig: Rig) -> Iterator[Pair]:
    """One backend, or 200 with a model each; the call is for another model, which goes to the default backend."""
    many = "\n".join(f'    b{n}: {{url: "{{engine}}", models: ["m{n}/bench-64-0"], max_concurrency: 1024}}' for n in range(200))
    rest, asked = CONFIG.split("\n", 1)[1], ("--model", "new/bench-64-0")
    config = f"routing:\n  default_backend: b0\n  backends:\n{many}\n{rest}"
    with lexora(rig, "one", CONFIG) as one, lexora(rig, "many", config) as more:
        title = "CPU per call: 1 backend, 200 backends"
        yield _unary(rig, "backends", title, Side(one, *asked), Side(more, *asked))


def users(rig: Rig) -> Iterator[Pair]:
    """Ten clients with a limit of their own, or 100,000 of them that have all been there."""
    number = 5_000 if rig.quick else 100_000
    with lexora(rig, "few", CONFIG) as few, lexora(rig, "crowd", CONFIG) as crowd:
        load(rig.tools, crowd.port, "--connections", 32, "--users", number, "--count", number, "--limit", 250)
        title = f"CPU per call: 10 limited users, {number:,}"
        yield _unary(rig, "users", title, Side(few, "--users", "10"), Side(crowd, "--users", str(number)))


def shared_state(rig: Rig) -> Iterator[Pair]:
    """Limits of its own, or leased from a Valkey; and what the store has to do for a call."""
    store = f"{CONFIG}state: {{url: 'STORE'}}\n"
    with ValkeyProcess(rig.run / "valkey") as valkey:
        shared = store.replace("STORE", valkey.url)
        with lexora(rig, "own", CONFIG) as own, lexora(rig, "shared", shared) as leased, valkey.client() as client:
            tenants = ("--users", "10")
            yield _unary(
                rig, "state", "CPU per call: state of its own, in a Valkey", Side(own, *tenants), Side(leased, *tenants)
            )
            calls, before = 20_000, _run(client)
            load(rig.tools, leased.port, "--connections", 32, *tenants, "--count", calls, "--limit", 250)
            title = f"operations at the Valkey per call, {calls:,} calls"
            yield Pair("state-operations", title, "", None, (_run(client) - before) / calls, OPERATIONS)


def _run(client: Any) -> int:
    """Calls of functions and scripts that a Valkey has run."""
    found = client.info("commandstats")
    return sum(found.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("fcall", "evalsha"))


def workers(rig: Rig) -> Iterator[Pair]:
    """One process, or two workers with their supervisor and coordinator; their calls as well, where they have a core each."""
    several = CONFIG.replace("server: {", "server: {workers: 2, ")
    with lexora(rig, "alone", CONFIG) as alone, lexora(rig, "workers", several) as pair:
        yield _unary(rig, "workers", "CPU per call: one process, two workers", Side(alone), Side(pair))
        one, two = memory(alone, "VmRSS"), memory(pair, "VmRSS")
        yield Pair("workers-memory", "memory: one process, two workers and what they need", "MiB", one, two, None)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= CORES_FOR_TWO:
        wide = replace(rig, cpus=frozenset(cores[-2:]))
        with lexora(wide, "alone-wide", CONFIG) as alone, lexora(wide, "workers-wide", several) as pair:
            rates = [statistics.median(run_case(wide, side, UNARY)["per_second"] for _ in range(5)) for side in (alone, pair)]
            yield Pair("workers-rate", "calls per second: one process, two workers", "1/s", rates[0], rates[1], None)


def idle_streams(rig: Rig) -> Iterator[Pair]:
    """No stream, or 5,000 that have had a token and wait for the next; and what each of them holds."""
    number = 500 if rig.quick else 5_000
    with lexora(rig, "free", CONFIG) as free, lexora(rig, "busy", CONFIG) as busy:
        before = memory(busy, "VmRSS")
        with _open_streams(rig, busy, number):
            held = memory(busy, "VmRSS") - before
            yield Pair(
                "stream-memory", f"memory per open stream, {number:,} open", "KiB", None, held * 1024 / number, STREAM_KIB
            )
            yield _unary(rig, "idle-streams", f"CPU per call: no stream, {number:,} idle streams", Side(free), Side(busy))


def flat(rig: Rig) -> Iterator[Pair]:
    """Memory after a tenth of many calls, and after all of them."""
    calls = 6_000 if rig.quick else 300_000 if rig.thorough else 30_000
    with lexora(rig, "long", CONFIG) as target:
        load(rig.tools, target.port, "--connections", 32, "--count", calls // 10, "--limit", 250)
        early = memory(target, "VmRSS")
        load(rig.tools, target.port, "--connections", 32, "--count", calls - calls // 10, "--limit", 250)
        yield Pair("flat", f"memory: after {calls // 10:,} calls, {calls:,}", "MiB", early, memory(target, "VmRSS"), FLAT)


def http_client(rig: Rig) -> Iterator[Pair]:
    """The same small server twice: what it costs with aiohttp, and with Lexora's own HTTP client."""
    sides = [Gateway(f"client-{kind}", client_command(kind), rig.engine.port, rig.run, rig.cpus) for kind in ("aiohttp", "own")]
    try:
        for gateway in sides:
            warm_up(rig, gateway.start())
        for case in (UNARY, STREAM):
            base, value = in_turn(rig, case, *(Side(gateway.target) for gateway in sides))
            title = f"HTTP client, CPU per {case.unit}: aiohttp, Lexora's own"
            yield Pair(f"client-{case.unit}", title, "µs", base, value, None)
    finally:
        for gateway in sides:
            gateway.stop()


@contextlib.contextmanager
def lexora(rig: Rig, name: str, config: str) -> Iterator[Target]:
    """`lexora serve` with a configuration, warm."""
    with Gateway(f"{LEXORA}-{name}", serve_command(), rig.engine.port, rig.run, rig.cpus, config=config) as target:
        warm_up(rig, target)
        yield target


class Side:
    """A target, and options of the load for it alone."""

    def __init__(self, target: Target, *options: str) -> None:
        self.target = target
        self.options = options


def _unary(rig: Rig, name: str, title: str, base: Side, other: Side) -> Pair:
    """CPU per unary call of both, measured in turn."""
    first, second = in_turn(rig, UNARY, base, other)
    return Pair(name, title, "µs", first, second, GROWTH)


def in_turn(rig: Rig, case: Case, *sides: Side) -> list[float]:
    """Median CPU per unit (µs) of one case for each side, measured in turn. Raises RigError on a wrong answer."""
    found: list[list[float]] = [[] for _ in sides]
    for _ in range(3 if rig.quick else 5):
        for side, values in zip(sides, found, strict=True):
            result = run_case(rig, side.target, replace(case, options=(*case.options, *side.options)))
            if result["errors"] or result["cpu_us"] is None:
                raise RigError(f"{side.target.name}: {result['errors']} ({result['first_error']})")
            values.append(result["cpu_us"])
    return [statistics.median(values) for values in found]


@contextlib.contextmanager
def _open_streams(rig: Rig, target: Target, number: int) -> Iterator[None]:
    """So many streams through the target with a token in a minute."""
    options = ("--stream", "--model", "bench-9-60000", "--connections", str(number), "--count", str(number), "--ramp", "4000")
    command = [str(rig.tools.load), "--port", str(target.port), *options, "--timeout", "300", "--limit", "300"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        if not procs.wait_for(lambda: rig.engine.stats()["active"] >= number, OPEN_LIMIT_S, 0.1):
            raise RigError(f"of {number} streams through {target.name} the engine has {rig.engine.stats()['active']}")
        yield
    finally:
        procs.stop(process)
        rig.engine.settle()
