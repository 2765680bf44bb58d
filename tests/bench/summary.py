"""Rounds to rows: the median of each figure over the rounds, and the verdict on each bar."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.measure import BASELINE, DIRECT, GATEWAY, Round

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.cases import Case
    from tests.bench.engine import Json

CROWDED = 0.15  # CPUs busy with something else; above that the figures are not to be trusted


@dataclass(frozen=True)
class Row:
    """One case, medians over the rounds, times in µs. `over` is None without a bar."""

    case: Case
    cpu_us: float | None
    floor_us: float | None
    per_second: float
    added_p50: float  # whole answer of unary calls, first token of streams: gateway less direct
    added_p99: float
    lag_p50: float | None  # token under way, engine's write to client's read; streams only
    lag_p99: float | None
    direct_lag_p50: float | None
    direct_lag_p99: float | None

    @property
    def over(self) -> bool | None:
        """True when the CPU is above the bar."""
        return None if self.case.bar is None or self.cpu_us is None else self.cpu_us > self.case.bar


@dataclass(frozen=True)
class Summary:
    """All that is printed. `problems` are wrong answers: any makes the run a failure."""

    rows: tuple[Row, ...]
    startup_s: float | None
    idle_mib: float
    peak_mib: float
    aborts: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def over(self) -> bool:
        """True when a bar is broken."""
        return any(row.over for row in self.rows)


def summarise(rounds: Sequence[Round], cases: Sequence[Case]) -> Summary:
    """The summary of one or more rounds of the same cases."""
    return Summary(
        rows=tuple(_row(rounds, case) for case in cases),
        startup_s=_median([x for r in rounds if (x := r.startup_s.get(GATEWAY)) is not None]),
        idle_mib=_median([r.idle_mib[GATEWAY] for r in rounds]) or 0.0,
        peak_mib=_median([r.peak_mib[GATEWAY] for r in rounds]) or 0.0,
        aborts=_aborts(rounds),
        problems=tuple(_problems(rounds)),
        warnings=tuple(_warnings(rounds)),
    )


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _row(rounds: Sequence[Round], case: Case) -> Row:
    delay = "latency_us" if case.unit == "call" else "ttft_us"
    runs = [r.cases[case.name] for r in rounds]

    def over_rounds(figure: Callable[[dict[str, Json]], float | None]) -> float | None:
        return _median([x for run in runs if (x := figure(run)) is not None])

    def added(quantile: str) -> float:
        return over_rounds(lambda run: run[GATEWAY][delay][quantile] - run[DIRECT][delay][quantile]) or 0.0

    def lag(target: str, quantile: str) -> float | None:
        if case.unit == "call":
            return None
        return over_rounds(lambda run: float(run[target]["lag_us"][quantile]))

    return Row(
        case=case,
        cpu_us=over_rounds(lambda run: run[GATEWAY]["cpu_us"]),
        floor_us=over_rounds(lambda run: run[BASELINE]["cpu_us"] if BASELINE in run else None),
        per_second=over_rounds(lambda run: float(run[GATEWAY]["per_second"])) or 0.0,
        added_p50=added("p50"),
        added_p99=added("p99"),
        lag_p50=lag(GATEWAY, "p50"),
        lag_p99=lag(GATEWAY, "p99"),
        direct_lag_p50=lag(DIRECT, "p50"),
        direct_lag_p99=lag(DIRECT, "p99"),
    )


def _aborts(rounds: Sequence[Round]) -> str:
    runs = [r.aborts for r in rounds if r.aborts]
    if not runs:
        return "not looked at"
    seen, left = sum(run["aborted"] for run in runs), sum(run["left"] for run in runs)
    return f"{seen} of {left} within {max(run['seconds'] for run in runs) * 1e3:,.0f} ms"


def _problems(rounds: Sequence[Round]) -> list[str]:
    found = []
    for number, r in enumerate(rounds, 1):
        for case, runs in r.cases.items():
            for target in (DIRECT, GATEWAY):  # the bare relay promises nothing
                if errors := runs[target]["errors"]:
                    kinds = ", ".join(f"{count} {kind}" for kind, count in errors.items())
                    found.append(f"round {number}, {case}, {target}: {kinds} ({runs[target]['first_error']})")
                if not runs[target]["ok"]:
                    found.append(f"round {number}, {case}, {target}: no answer was right")
        if r.aborts and not 0 < r.aborts["left"] <= r.aborts["aborted"]:
            found.append(f"round {number}: {r.aborts['left']} clients left, the engine saw {r.aborts['aborted']} go")
    return found


def _warnings(rounds: Sequence[Round]) -> list[str]:
    runs = [run for r in rounds for case in r.cases.values() for target, run in case.items() if target != DIRECT]
    crowd = statistics.median(run["other_cores"] for run in runs)
    found = []
    if crowd > CROWDED:
        found.append(f"others kept {crowd:.2f} CPUs busy meanwhile: measure again on a quiet machine")
    if any(run["rig_cores"] > 0.95 for run in runs):
        found.append("the rig itself had a CPU full in some case: its latencies hold the rig's own delay")
    return found
