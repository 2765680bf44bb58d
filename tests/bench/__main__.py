"""`python -m tests.bench`: the command line."""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import document, pairs, plot, procs, results, show
from tests.bench.build import OUT, RigError, build
from tests.bench.cases import CASES, NAMES, SWEEP, Case
from tests.bench.engine import Engine
from tests.bench.grpc_pairs import grpc_side
from tests.bench.measure import Rig, measure_round
from tests.bench.results import Results
from tests.bench.summary import Summary, summarise
from tests.bench.targets import LEXORA, RELAY, Gateway, peers, relay_command, serve_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.pairs import Pair

EXAMPLES = """\
examples:
  python -m tests.bench                        everything, about 8 minutes; writes out/bench/results.json and plot.svg
  python -m tests.bench --quick                one short round of the loads alone, under a minute
  python -m tests.bench --only unary-32,stream-32 --rounds 5 --plain | grep ratio
  python -m tests.bench --only idle-streams,users
  python -m tests.bench --thorough --docs      what docs/performance.md has: tables and plot are written there
  python -m tests.bench --from results.json --docs    the same from figures that were saved, without measuring
  python -m tests.bench --command 'my-gateway --listen 127.0.0.1:{port} --upstream {engine}'

Exit status: 0, also when a bar is broken (unless --strict); 1 when an answer was wrong; 2 when it could not measure.
"""
PAIRS: dict[str, Callable[[Rig], Iterator[Pair]]] = {
    "backends": pairs.backends,
    "users": pairs.users,
    "state": pairs.shared_state,
    "workers": pairs.workers,
    "idle-streams": pairs.idle_streams,
    "flat": pairs.flat,
    "grpc": grpc_side,
    "http-client": pairs.http_client,
}
PLOT = "plot"
PARTS = (*NAMES, *PAIRS, PLOT)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options. Ends the program on wrong ones."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measures Lexora in front of a stub engine, beside a bare relay and the peers that are installed.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="one short round of the loads, or short forms of what --only names")
    add("--thorough", action="store_true", help="300,000 calls where it is 30,000 otherwise")
    add("--rounds", type=int, help="how often the loads are measured; medians are shown (default 3, quick 1)")
    add("--only", type=_names, metavar="PART,...", help=f"of {', '.join(PARTS)}")
    add("--command", help="measure this in place of `lexora serve`; {config}, {engine} and {port} are filled in")
    add("--no-peers", action="store_true", help="neither nginx nor vllm-router")
    add("--no-pin", action="store_true", help="leave processes on all CPUs (default: rig and gateways on one each)")
    add("--strict", action="store_true", help="a broken bar fails the run")
    add("--json", type=Path, metavar="FILE", default=OUT / "results.json", help="write everything measured there")
    add("--plot", type=Path, metavar="FILE", default=OUT / "plot.svg", help="write the plot there")
    add("--from", dest="saved", type=Path, metavar="FILE", help="measure nothing: report what --json wrote there")
    add("--docs", action="store_true", help="write tables and plot into docs/")
    add("--plain", action="store_true", help="print figure.target=value lines")
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if options.saved and (options.only or options.quick or options.command or options.rounds):
        parser.error("--from measures nothing: leave out --only, --quick, --command and --rounds")
    if options.only is None:
        options.only = NAMES if options.quick or options.command else PARTS
    if options.docs and set(PARTS) - set(options.only):
        parser.error("--docs needs all parts: leave out --only, --quick and --command")
    try:
        if options.docs:
            document.page()
        if options.saved:
            options.saved = results.read(options.saved)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if options.docs and options.saved and not (options.saved.rounds and options.saved.sweep):
        parser.error("--docs needs the loads and the plot, and the file lacks one of them")
    return options


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name)
    if not names or set(names) - set(PARTS):
        raise argparse.ArgumentTypeError(f"parts are {', '.join(PARTS)}")
    return names


def say(text: str) -> None:
    """A line of progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def measure(options: argparse.Namespace, cases: list[Case], run: Path, found: Results) -> None:
    """All that is asked for, into `found`. Raises RigError when something cannot be measured."""
    tools = build()
    cpus = None if options.no_pin else procs.split_cpus()
    with procs.on_cpus(cpus[0] if cpus else None), Engine(tools) as engine:
        rig = Rig(tools, engine, run, cpus[1] if cpus else None, options.quick, options.thorough, say)
        count = (options.rounds or (1 if options.quick else 3)) if cases else 0
        for number in range(1, count + 1):
            say(f"round {number} of {count}")
            found.rounds.append(measure_round(rig, _gateways(options, rig), cases))
            found.setting = setting(options, number)
        for name, pair in PAIRS.items():
            if name in options.only:
                say(name)
                found.pairs += pair(rig)
        if PLOT in options.only:
            short = dataclasses.replace(rig, quick=True)
            found.sweep = measure_round(short, _gateways(options, rig), SWEEP).cases


def _gateways(options: argparse.Namespace, rig: Rig) -> list[Gateway]:
    commands = {LEXORA: shlex.split(options.command) if options.command else serve_command(), RELAY: relay_command()}
    commands |= {} if options.no_peers else peers()
    return [Gateway(name, command, rig.engine.port, rig.run, rig.cpus) for name, command in commands.items()]


def setting(options: argparse.Namespace, rounds: int) -> str:
    """What the figures depend on, in a line."""
    pinned = "rig and gateway on one CPU each" if procs.split_cpus() and not options.no_pin else "not pinned"
    kind = "quick, " if options.quick else ""
    return (
        f"{kind}median of {rounds} round{'' if rounds == 1 else 's'}; {os.cpu_count()} CPUs, {pinned}; "
        f"Linux {platform.release().split('-')[0]} {platform.machine()}, Python {platform.python_version()}"
    )


def report(options: argparse.Namespace, found: Results, summary: Summary) -> None:
    """Prints the figures, and writes plot and documentation."""
    picture = plot.svg(plot.panels(found.sweep)) if found.sweep else None
    if options.plain:
        print(show.plain(summary, found.pairs))
    else:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        print(show.table(summary, found.pairs, colour=colour), found.setting, show.NOTE, sep="\n")
    if picture:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        options.plot.write_text(picture)
    if picture and options.docs:
        document.write(show.markdown(summary, found.pairs, found.setting), picture)


def measure_and_save(options: argparse.Namespace) -> Results:
    """Measures, and saves the figures, also those that came before something could not be measured.

    Raises RigError and KeyboardInterrupt.
    """
    run = OUT / f"run-{os.getpid()}"
    began = time.monotonic()
    procs.raise_descriptors()
    found = Results(setting(options, 0))
    try:
        measure(options, [case for case in CASES if case.name in options.only], run, found)
    finally:
        shutil.rmtree(run, ignore_errors=True)
        if found.measured:
            found.write(options.json)
            say(f"the figures are in {options.json}")
    say(f"done in {time.monotonic() - began:.0f} s")
    return found


def main(arguments: list[str]) -> int:
    """Runs it; the exit status."""
    options = parse(arguments)
    try:
        found = options.saved or measure_and_save(options)
    except RigError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("stopped")
        return 130
    names = {name for each in found.rounds for name in each.cases}
    summary = summarise(found.rounds, [case for case in CASES if case.name in names])
    report(options, found, summary)
    over = any(figure.over for figure in summary.figures) or any(pair.over for pair in found.pairs)
    return 1 if summary.problems or (options.strict and over) else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what it started, as after Ctrl-C
    sys.exit(main(sys.argv[1:]))
