"""A summary as a table for people, as Markdown for the documentation, as key=value lines for grep."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.summary import Row, Summary

GREEN, RED, RESET = "\033[32m", "\033[31m", "\033[0m"
HEAD = (
    "case",
    "CPU",
    "bar",
    "",
    "floor",
    "answers/s",
    "added p50",
    "added p99",
    "lag p50 (direct)",
    "lag p99 (direct)",
)
NOTE = (
    "CPU: µs of the gateway's whole process tree per call or per token, kernel time included; floor: the bare relay's. "
    "Added: gateway less direct, whole answer of a unary call, first token of a stream. "
    "Lag: from the engine's write of a token to the client's read."
)


def duration(us: float | None) -> str:
    """A time for people: µs below 10,000 µs, ms from there on."""
    if us is None:
        return "-"
    return f"{us / 1000:,.1f} ms" if abs(us) >= 9999.5 else f"{us:,.0f} µs"


def _figure(us: float | None) -> str:
    return "-" if us is None else f"{us:,.1f}" if us < 100 else f"{us:,.0f}"


def verdict(row: Row) -> str:
    """PASS, OVER, or nothing without a bar."""
    return {None: "", True: "OVER", False: "PASS"}[row.over]


def _cells(row: Row) -> tuple[str, ...]:
    floor = _figure(row.floor_us)
    if row.floor_us and row.cpu_us:
        floor += f" (x{row.cpu_us / row.floor_us:.2f})"
    lags = ("-", "-")
    if row.lag_p50 is not None:
        lags = (
            f"{duration(row.lag_p50)} ({duration(row.direct_lag_p50)})",
            f"{duration(row.lag_p99)} ({duration(row.direct_lag_p99)})",
        )
    return (
        row.case.title,
        f"{_figure(row.cpu_us)} /{row.case.unit}",
        "-" if row.case.bar is None else f"{row.case.bar:g}",
        verdict(row),
        floor,
        f"{row.per_second:,.0f}",
        duration(row.added_p50),
        duration(row.added_p99),
        *lags,
    )


def facts(summary: Summary) -> list[str]:
    """What is not in the table, a line each."""
    start = "-" if summary.startup_s is None else f"{summary.startup_s:.2f} s"
    return [
        f"start to first answer: {start}",
        f"memory (RSS): {summary.idle_mib:.0f} MiB at first, {summary.peak_mib:.0f} MiB at most",
        f"clients that left, seen by the engine: {summary.aborts}",
        *(f"warning: {text}" for text in summary.warnings),
        *(f"WRONG: {text}" for text in summary.problems),
    ]


def table(summary: Summary, *, colour: bool) -> str:
    """For a terminal."""
    rows = [HEAD, *(_cells(row) for row in summary.rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    text = "\n".join([*lines, "", *facts(summary)])
    if colour:
        for word, code in (("PASS", GREEN), ("OVER", RED), ("WRONG", RED)):
            text = text.replace(word, code + word + RESET)
    return text


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]).rstrip()


def markdown(summary: Summary, setting: str) -> str:
    """For docs/performance.md: the table, the facts and one line on the machine (`setting`)."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---" + "|---:" * (len(HEAD) - 1) + "|"]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in summary.rows]
    return "\n".join([*lines, "", *(f"- {fact}" for fact in facts(summary)), f"- {setting}", "", NOTE])


def plain(summary: Summary) -> str:
    """`case.figure=value` lines; times in µs, a dash for what was not measured."""
    lines = []
    for row in summary.rows:
        figures = {
            f"cpu_us_per_{row.case.unit}": row.cpu_us,
            "bar_us": row.case.bar,
            "floor_us": row.floor_us,
            "answers_per_s": row.per_second,
            "added_p50_us": row.added_p50,
            "added_p99_us": row.added_p99,
            "lag_p50_us": row.lag_p50,
            "lag_p99_us": row.lag_p99,
            "direct_lag_p50_us": row.direct_lag_p50,
            "direct_lag_p99_us": row.direct_lag_p99,
        }
        lines += [f"{row.case.name}.{key}={'-' if x is None else f'{x:.1f}'}" for key, x in figures.items()]
        lines.append(f"{row.case.name}.verdict={verdict(row).lower() or '-'}")
    start = "-" if summary.startup_s is None else f"{summary.startup_s:.3f}"
    lines += [f"startup_s={start}", f"idle_mib={summary.idle_mib:.1f}", f"peak_mib={summary.peak_mib:.1f}"]
    lines += [f"aborts={summary.aborts}", f"warnings={len(summary.warnings)}", f"problems={len(summary.problems)}"]
    return "\n".join(lines)
