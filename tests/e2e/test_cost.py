"""What a call costs beside a bare relay, in one run: gross regressions of the hot path, whatever the machine."""

import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import procs
from tests.bench.access import SIZES, measured
from tests.bench.build import build, compiler
from tests.bench.cases import CASES, Case
from tests.bench.engine import Engine
from tests.bench.measure import Rig, run_case, warm_up
from tests.bench.targets import LEXORA, RELAY, Gateway, Target, relay_command, serve_command

pytestmark = [
    pytest.mark.serial,
    pytest.mark.skipif(compiler() is None, reason="no C compiler on this machine (cc, gcc, clang)"),
]

# CPU of Lexora's process tree per call or token, in terms of the relay's: half as much again as it is on a busy machine.
BARS = {"unary-32": 16.0, "stream-32": 5.0}
# How often the thread of the event loop has waited, per call, at 32 calls at once: then there is always something to do, and
# only what blocks makes it wait, be it a sleep, a lock or a disk. Without that it is about 0.02.
WAITS = 0.3
ROUNDS = 4


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("cost")
    tools = build(folder)
    with Engine(tools) as engine:
        yield Rig(tools, engine, folder, None, quick=True, thorough=False, say=print)


@pytest.fixture(scope="module")
def targets(rig: Rig) -> Iterator[tuple[Target, Target]]:
    """Lexora and the relay, warm."""
    commands = {LEXORA: serve_command(), RELAY: relay_command()}
    gateways = [Gateway(name, command, rig.engine.port, rig.run, None) for name, command in commands.items()]
    try:
        found = [gateway.start() for gateway in gateways]
        for target in found:
            warm_up(rig, target)
        yield found[0], found[1]
    finally:
        for gateway in gateways:
            gateway.stop()


def test_a_hundred_thousand_keys_cost_a_call_what_ten_do(tmp_path: Path) -> None:
    few, many = (measured(size, tmp_path) for size in SIZES)
    assert many.call < 4 * few.call  # what does not fit into the cache of a busy CPU is slower


@pytest.mark.parametrize("case", [case for case in CASES if case.name in BARS], ids=lambda case: case.name)
def test_a_call_costs_no_multiple_of_what_it_did(rig: Rig, targets: tuple[Target, Target], case: Case) -> None:
    """The lower half of the rounds counts: other work on the machine makes ratios worse, seldom better."""
    ratios, waits = [], []
    mine, floor = targets
    assert mine.pid
    for _ in range(ROUNDS):
        before = procs.waits(mine.pid)
        result = run_case(rig, mine, case)
        waits.append((procs.waits(mine.pid) - before) / result["ok"])
        assert result["errors"] == {}
        ratios.append(result["cpu_us"] / run_case(rig, floor, case)["cpu_us"])
    assert statistics.quantiles(ratios)[0] < BARS[case.name]
    assert statistics.quantiles(waits)[0] < WAITS
