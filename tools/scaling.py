"""How many gateways a fleet needs, and what grows with what: python tools/scaling.py [--docs]

Arithmetic on measured figures, which `Figures` has with their sources. Change `Fleet` to what yours is like. --docs writes the
tables of docs/scaling.md.
"""

import argparse
import re
import sys
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
SIZES = (10, 100, 1000)


@dataclass(frozen=True)
class Figures:
    """What one process costs. Sources: docs/performance.md, or `python -m tests.bench.scale` where it says so."""

    call: float = 157e-6
    """Core seconds for a call, 32 at a time (unary-32)."""
    chunk: float = 48.5e-6
    """Core seconds for a piece of a stream at a steady pace (steady-200)."""
    probe: float = 291e-6
    """Core seconds for a probe of an endpoint (tests.bench.scale)."""
    started: float = 84 * 1024
    """KiB of a process without calls."""
    stream: float = 19.0
    """KiB for an open stream (idle-streams)."""
    tenant: float = 0.5
    """KiB for a tenant with limits (tests.bench.scale)."""
    key: float = 0.7
    """KiB for a key in the file of keys (tests.bench.scale)."""
    exchange: float = 0.3e-3
    """Core seconds for an exchange with the store (docs/architecture.md)."""
    exchanges: float = 10.0
    """Exchanges per second and process, whatever the number of calls."""
    all_exchanges: float = 1000.0
    """And of all processes: where there are more, each has longer gaps."""


@dataclass(frozen=True)
class Fleet:
    """Engines and their load."""

    engines: int
    calls_at_once: int = 64
    """Calls that an engine serves at a time: max_concurrency."""
    load: float = 0.7
    """The share of these that is taken."""
    tokens_per_second: float = 40.0
    """Of one stream."""
    tokens: float = 400.0
    """Of one answer."""
    tokens_per_chunk: float = 1.0
    """What vLLM sends at once: --stream-interval."""
    health_interval: float = 5.0
    tenants: int = 1_000_000
    busy: float = 0.6
    """The share of a core that a process should have to do at most: above it, latency is mostly waiting in line."""


@dataclass(frozen=True)
class Need:
    """What a fleet needs."""

    streams: float
    calls: float
    chunks: float
    cores: float
    processes: int
    probes_sent: float
    probes_seen: float
    exchanges: float
    exchanges_per_call: float
    sockets: float
    memory: float


def need(fleet: Fleet, figures: Figures) -> Need:
    """The arithmetic. Rates are per second, memory is in MiB per process."""
    streams = fleet.engines * fleet.calls_at_once * fleet.load
    calls = streams * fleet.tokens_per_second / fleet.tokens
    chunks = streams * fleet.tokens_per_second / fleet.tokens_per_chunk
    probes = fleet.engines / fleet.health_interval
    work = calls * figures.call + chunks * figures.chunk
    besides = probes * figures.probe + figures.exchanges * figures.exchange
    processes = ceil(work / (fleet.busy - besides))
    exchanges = min(processes * figures.exchanges, figures.all_exchanges)
    kept = figures.started + streams / processes * figures.stream + fleet.tenants * figures.tenant
    return Need(
        streams=streams,
        calls=calls,
        chunks=chunks,
        cores=work + processes * besides,
        processes=processes,
        probes_sent=probes,
        probes_seen=processes / fleet.health_interval,
        exchanges=exchanges,
        exchanges_per_call=exchanges / calls,
        sockets=2 * streams / processes,
        memory=kept / 1024,
    )


ROWS: tuple[tuple[str, str, str], ...] = (
    ("calls under way", "streams", "{:,.0f}"),
    ("calls per second", "calls", "{:,.0f}"),
    ("pieces of streams per second", "chunks", "{:,.0f}"),
    ("cores", "cores", "{:,.1f}"),
    ("processes, each at most {busy:.0%} busy", "processes", "{:,}"),
    ("sockets of a process", "sockets", "{:,.0f}"),
    ("probes that a process sends per second", "probes_sent", "{:,.0f}"),
    ("probes that an engine gets per second", "probes_seen", "{:,.1f}"),
    ("exchanges with the store per second, all processes", "exchanges", "{:,.0f}"),
    ("exchanges for each call", "exchanges_per_call", "{:,.2f}"),
    ("memory of a process that has seen all tenants, MiB", "memory", "{:,.0f}"),
)


def table(fleet: Fleet, figures: Figures) -> str:
    """A table in Markdown, a column for each size."""
    needs = [need(replace(fleet, engines=engines), figures) for engines in SIZES]
    lines = ["| engines |" + "".join(f" {engines:,} |" for engines in SIZES), "|---|" + "---:|" * len(SIZES)]
    for label, field, form in ROWS:
        cells = "".join(f" {form.format(getattr(each, field))} |" for each in needs)
        lines.append(f"| {label.format(busy=fleet.busy)} |{cells}")
    return "\n".join(lines) + "\n"


TABLES = {"each token alone": Fleet(engines=0), "four tokens at a time": Fleet(engines=0, tokens_per_chunk=4)}


def page(text: str) -> str:
    """The page with its tables made anew."""
    for name, fleet in TABLES.items():
        place = re.compile(rf"(<!-- scaling: {re.escape(name)} -->\n).*?(<!-- /scaling -->)", re.S)
        text, count = place.subn(rf"\g<1>\n{table(fleet, Figures())}\n\g<2>", text)
        if count != 1:
            sys.exit(f"{PAGE.name} has no place for the table {name!r}")
    return text


def main() -> None:
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/scaling.md")
    if parser.parse_args().docs:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    for name, fleet in TABLES.items():
        print(f"{name}\n\n{table(fleet, Figures())}")


if __name__ == "__main__":
    main()
