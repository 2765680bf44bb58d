"""CPU and latency against load, as an SVG without any library: four panels, a line for each target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from tests.bench.measure import DIRECT
from tests.bench.show import TITLES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.bench.engine import Json

WIDTH, HEIGHT = 430, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 34, 44
COLOURS = {"nginx": "#7a7a7a", "vllm-router": "#b45309", "relay": "#15803d", "lexora": "#1d4ed8"}
FALLBACK_COLOUR = "#9333ea"

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One picture: `lines` by target; both axes are logarithmic."""

    title: str
    across: str
    lines: Mapping[str, Points]


def panels(sweep: Mapping[str, Mapping[str, Json]]) -> list[Panel]:
    """The four panels of a sweep: `sweep[case][target]` is what `run_case` gives, cases are named KIND-NUMBER."""
    calls, streams = "calls at once", "steady streams, a token every 10 ms each"
    return [
        Panel("CPU, µs per unary call", calls, _lines(sweep, "unary", lambda run: run["cpu_us"])),
        Panel("latency of a unary call, p99, ms", calls, _lines(sweep, "unary", lambda run: run["latency_us"]["p99"] / 1000)),
        Panel("CPU, µs per streamed token", streams, _lines(sweep, "steady", lambda run: run["cpu_us"])),
        Panel("a token under way, p99, ms", streams, _lines(sweep, "steady", lambda run: run["lag_us"]["p99"] / 1000)),
    ]


def _lines(sweep: Mapping[str, Mapping[str, Json]], kind: str, figure: Callable[[Json], float | None]) -> dict[str, Points]:
    lines: dict[str, Points] = {}
    for name, runs in sweep.items():
        of, _, load = name.partition("-")
        for target, run in runs.items() if of == kind else ():
            value = figure(run)
            if value and value > 0 and target != DIRECT:  # the axes are logarithmic
                lines.setdefault(target, []).append((float(load), value))
    return lines


def svg(found: Sequence[Panel]) -> str:
    """The picture, two panels in a row."""
    rows = math.ceil(len(found) / 2)
    body = "".join(
        f'<g transform="translate({WIDTH * (i % 2)} {HEIGHT * (i // 2)})">{_panel(panel)}</g>' for i, panel in enumerate(found)
    )
    size = f'width="{2 * WIDTH}" height="{rows * HEIGHT + 24}" viewBox="0 0 {2 * WIDTH} {rows * HEIGHT + 24}"'
    legend = _legend(dict.fromkeys(target for panel in found for target in panel.lines), rows * HEIGHT + 12)
    style = "font-family='Helvetica, Arial, sans-serif' font-size='11' fill='#333'"
    paper = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{paper}{body}{legend}</svg>\n'


def _panel(panel: Panel) -> str:
    points = [point for line in panel.lines.values() for point in line]
    if not points:
        return ""
    across, up = _ticks([x for x, _ in points]), _ticks([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * _share(x, across[0], across[-1]),
            HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * _share(y, up[0], up[-1]),
        )

    parts = [f'<text x="{LEFT}" y="20" font-size="13" font-weight="bold">{escape(panel.title)}</text>']
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(panel.across)}</text>')
    for value in up:
        x, y = place(across[0], value)
        parts.append(f'<path d="M{x:.1f} {y:.1f}H{WIDTH - RIGHT}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in across:
        x, y = place(value, up[0])
        parts.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{value:g}</text>')
    for target, line in panel.lines.items():
        placed = [place(*point) for point in sorted(line)]
        colour = COLOURS.get(target, FALLBACK_COLOUR)
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in placed]
    return "".join(parts)


def _legend(targets: Mapping[str, None], y: float) -> str:
    parts = []
    for i, target in enumerate(targets):
        x, colour = LEFT + 150 * i, COLOURS.get(target, FALLBACK_COLOUR)
        parts.append(f'<path d="M{x} {y}h22" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{x + 28}" y="{y + 4}">{escape(TITLES.get(target, target))}</text>')
    return "".join(parts)


def _share(value: float, low: float, high: float) -> float:
    return math.log(value / low) / math.log(high / low)


def _ticks(values: Sequence[float]) -> list[float]:
    """1, 2, 5, 10 ... from just below the least to just above the greatest."""
    low, high = math.floor(math.log10(min(values))) - 1, math.ceil(math.log10(max(values)))  # log10 may round up
    steps = [digit * 10.0**power for power in range(low, high + 1) for digit in (1, 2, 5)]
    first = max(i for i, step in enumerate(steps) if step <= min(values))
    last = min(i for i, step in enumerate(steps) if step >= max(values) and i > first)
    return steps[first : last + 1]
