"""`python -m tests.bench`: the command line."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

from tests.bench import procs, show
from tests.bench.build import OUT, RigError, build
from tests.bench.cases import CASES, NAMES, Case
from tests.bench.engine import Engine
from tests.bench.gateway import Gateway, Target, baseline_command, serve_command
from tests.bench.measure import BASELINE, GATEWAY, Rig, Round, measure_round
from tests.bench.summary import Summary, summarise

EXAMPLES = """\
examples:
  python -m tests.bench                        three rounds of all cases against `lexora serve`
  python -m tests.bench --quick --strict       one short round; fails when a bar is broken
  python -m tests.bench --baseline --markdown  with the bare relay beside it, as Markdown
  python -m tests.bench --only unary-32,stream-32 --rounds 5 --plain | grep cpu_us
  python -m tests.bench --command 'my-gateway --listen 127.0.0.1:{port} --upstream {engine}'
  python -m tests.bench --engine-port 9100 --url http://127.0.0.1:8001 --pid 4242
                                               something already running in front of http://127.0.0.1:9100

Exit status: 0, also when a bar is broken (unless --strict); 1 when an answer was wrong; 2 when it could not measure.
"""


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options. Ends the program on wrong ones."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measures CPU per call and per token, and added latency, of a gateway in front of a stub engine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="one short round, for CI (under 25 s)")
    add("--rounds", type=int, help="how often everything is measured; medians are shown (default 3, quick 1)")
    add("--only", type=_names, default=NAMES, metavar="CASE,...", help=f"of {', '.join(NAMES)}")
    add("--baseline", action="store_true", help="measure a bare relay too: the floor of an ASGI and aiohttp gateway")
    add("--command", help="start this instead of `lexora serve`; {config}, {engine} and {port} are filled in")
    add("--url", type=_local_port, metavar="URL", help="measure what already runs at http://127.0.0.1:PORT")
    add("--pid", type=int, help="with --url: the process whose tree's CPU counts")
    add("--engine-port", type=int, default=0, help="port of the stub engine (default: a free one)")
    add("--no-pin", action="store_true", help="leave processes on all CPUs (default: rig and gateway on one each)")
    add("--strict", action="store_true", help="a broken bar fails the run")
    add("--json", type=Path, metavar="FILE", help="write everything measured there")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print Markdown")
    form.add_argument("--plain", action="store_true", help="print case.figure=value lines")
    options = parser.parse_args(arguments)
    if (options.url is None) != (options.pid is None):
        parser.error("--url and --pid go together: without the process there is no CPU figure")
    if options.url is not None and (options.command or not options.engine_port):
        parser.error("--url excludes --command and needs --engine-port, the engine that URL leads to")
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    return options


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name)
    if not names or set(names) - set(NAMES):
        raise argparse.ArgumentTypeError(f"cases are {', '.join(NAMES)}")
    return names


def _local_port(url: str) -> int:
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    if host not in ("127.0.0.1", "localhost") or not port.isdigit():
        raise argparse.ArgumentTypeError("http://127.0.0.1:PORT is needed: stamps are compared on one machine")
    return int(port)


def say(text: str) -> None:
    """A line of progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def measure(options: argparse.Namespace, cases: list[Case], run: Path) -> list[Round]:
    """All rounds. Raises RigError when something cannot be measured."""
    tools = build()
    cpus = None if options.no_pin else procs.split_cpus()
    with procs.on_cpus(cpus[0] if cpus else None), Engine(tools, options.engine_port) as engine:
        rig = Rig(tools, engine, run, cpus[1] if cpus else None, options.quick, say)
        rounds = []
        count = options.rounds or (1 if options.quick else 3)
        for number in range(1, count + 1):
            say(f"round {number} of {count}")
            rounds.append(measure_round(rig, _gateways(options, rig), _running(options), cases))
        return rounds


def _gateways(options: argparse.Namespace, rig: Rig) -> list[Gateway]:
    commands = {}
    if options.url is None:
        commands[GATEWAY] = shlex.split(options.command) if options.command else serve_command()
    if options.baseline:
        commands[BASELINE] = baseline_command()
    return [Gateway(name, command, rig.engine.port, rig.run, rig.cpus) for name, command in commands.items()]


def _running(options: argparse.Namespace) -> list[Target]:
    return [] if options.url is None else [Target(GATEWAY, options.url, options.pid)]


def setting(options: argparse.Namespace, rounds: int) -> str:
    """What the figures depend on, in a line."""
    pinned = "rig and gateway on one CPU each" if procs.split_cpus() and not options.no_pin else "not pinned"
    kind = "quick, " if options.quick else ""
    return (
        f"{kind}median of {rounds} round{'s' if rounds > 1 else ''}; {os.cpu_count()} CPUs, {pinned}; "
        f"Linux {platform.release().split('-')[0]} {platform.machine()}, Python {platform.python_version()}"
    )


def report(options: argparse.Namespace, rounds: list[Round], summary: Summary) -> None:
    """Prints the figures and writes the JSON file."""
    line = setting(options, len(rounds))
    if options.markdown:
        print(show.markdown(summary, line))
    elif options.plain:
        print(show.plain(summary))
    else:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        print(show.table(summary, colour=colour), line, show.NOTE, sep="\n")
    if options.json:
        everything = {"setting": line, "rounds": [dataclasses.asdict(r) for r in rounds]}
        options.json.write_text(json.dumps(everything, indent=1) + "\n")


def main(arguments: list[str]) -> int:
    """Runs it; the exit status."""
    options = parse(arguments)
    cases = [case for case in CASES if case.name in options.only]
    run = OUT / f"run-{os.getpid()}"
    began = time.monotonic()
    try:
        rounds = measure(options, cases, run)
    except RigError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("stopped")
        return 130
    finally:
        shutil.rmtree(run, ignore_errors=True)
    say(f"done in {time.monotonic() - began:.0f} s")
    summary = summarise(rounds, cases)
    report(options, rounds, summary)
    return 1 if summary.problems or (options.strict and summary.over) else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what it started, as after Ctrl-C
    sys.exit(main(sys.argv[1:]))
