"""Figures as a table for a terminal, as Markdown for the documentation, as key=value lines for grep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.targets import LEXORA, PLAIN_PROXY, RELAY, VLLM_ROUTER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.pairs import Pair
    from tests.bench.summary import Figure, Summary

GREEN, RED, RESET = "\033[32m", "\033[31m", "\033[0m"
TITLES = {PLAIN_PROXY: "nginx", VLLM_ROUTER: "vllm-router", RELAY: "bare relay", LEXORA: "Lexora"}
NOTE = (
    "CPU of the gateway's whole process tree, kernel time included, on one core. Added: gateway less direct to the engine. "
    "Ratio: Lexora's figure in terms of vllm-router's; a bar with x is a ratio."
)


def number(value: float | None) -> str:
    """Three figures that count; a dash for what was not measured."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def verdict(over: bool | None) -> str:
    """PASS, OVER, or nothing without a bar."""
    return {None: "", True: "OVER", False: "PASS"}[over]


def _bar(bar: float | None, *, ratio: bool) -> str:
    return "" if bar is None else f"x{bar:g}" if ratio else f"{bar:g}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"x{value:.2f}"


def targets_of(figures: Sequence[Figure]) -> list[str]:
    """The targets that were measured, Lexora last."""
    seen = {target for figure in figures for target in figure.values}
    return [target for target in TITLES if target in seen]


def figure_rows(summary: Summary) -> list[tuple[str, ...]]:
    """Head and rows: a figure, what each target has, ratio, bar, verdict."""
    targets = targets_of(summary.figures)
    rows = [("", "unit", *(TITLES[target] for target in targets), "ratio", "bar", "")]
    for figure in summary.figures:
        values = (number(figure.values.get(target)) for target in targets)
        ratio = _ratio(figure.ratio) if figure.relative else "-"
        rows.append((figure.title, figure.unit, *values, ratio, _bar(figure.bar, ratio=figure.relative), verdict(figure.over)))
    return rows


def pair_rows(pairs: Sequence[Pair]) -> list[tuple[str, ...]]:
    """Head and rows: what was compared, both figures, ratio, bar, verdict."""
    rows: list[tuple[str, ...]] = [("", "unit", "first", "second", "ratio", "bar", "")]
    for pair in pairs:
        bar = _bar(pair.bar, ratio=pair.base is not None)
        rows.append((pair.title, pair.unit, number(pair.base), number(pair.value), _ratio(pair.ratio), bar, verdict(pair.over)))
    return rows


def facts(summary: Summary) -> list[str]:
    """What is not in the tables, a line each."""
    return [
        f"clients that left, seen by the engine: {summary.aborts}",
        *(f"warning: {text}" for text in summary.warnings),
        *(f"WRONG: {text}" for text in summary.problems),
    ]


def table(summary: Summary, pairs: Sequence[Pair], *, colour: bool) -> str:
    """For a terminal."""
    tables = ([figure_rows(summary)] if summary.figures else []) + ([pair_rows(pairs)] if pairs else [])
    blocks = [_aligned(rows) for rows in tables]
    text = "\n\n".join([*blocks, "\n".join(facts(summary))])
    if colour:
        for word, code in (("PASS", GREEN), ("OVER", RED), ("WRONG", RED)):
            text = text.replace(word, code + word + RESET)
    return text


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    head, *rest = (_line(row, widths) for row in rows)
    return "\n".join([head, "  ".join("-" * width for width in widths), *rest])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]).rstrip()


def markdown(summary: Summary, pairs: Sequence[Pair], setting: str) -> str:
    """For docs/performance.md: the tables, the facts and one line on the machine (`setting`)."""
    blocks = [_markdown(figure_rows(summary)), NOTE] + ([_markdown(pair_rows(pairs))] if pairs else [])
    return "\n\n".join([*blocks, "\n".join(f"- {fact}" for fact in (*facts(summary), setting))])


def _markdown(rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(cell.replace("OVER", "over").replace("PASS", "kept") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines[1:]])


def plain(summary: Summary, pairs: Sequence[Pair]) -> str:
    """`figure.target=value` lines."""
    lines = []
    for figure in summary.figures:
        lines += [f"{figure.name}.{target}={value:.3f}" for target, value in figure.values.items()]
        lines += [f"{figure.name}.ratio={figure.ratio:.3f}"] if figure.ratio is not None else []
        lines += [f"{figure.name}.verdict={verdict(figure.over).lower()}"] if figure.over is not None else []
    for pair in pairs:
        lines += [f"{pair.name}.base={pair.base:.3f}"] if pair.base is not None else []
        lines += [f"{pair.name}.value={pair.value:.3f}", f"{pair.name}.verdict={verdict(pair.over).lower() or '-'}"]
    return "\n".join(
        [*lines, f"aborts={summary.aborts}", f"warnings={len(summary.warnings)}", f"problems={len(summary.problems)}"]
    )
